"""Source: what a contender reads."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from typing_extensions import Self

Generation = Literal["seed", "current"]

PAGE_SIZE = 100
API_KEY = "octo_live_benchmark"


@dataclass(frozen=True)
class Source:
    """Catalogs of the local server.

    Attributes:
        base_url: Where the server is.
        generation: The contract it speaks.
        catalogs: The catalogs to read.
        concurrency: Catalogs to read at the same time, by who can.
    """

    base_url: str
    generation: Generation
    catalogs: list[str]
    concurrency: int = 8

    def search(self) -> dict[str, Any]:
        """The request for the first page of the only catalog."""
        (catalog,) = self.catalogs
        which = {"catalog": catalog} if self.generation == "seed" else {"catalogs": [catalog]}
        return {**which, "limit": PAGE_SIZE}

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From a command line."""
        return cls(**json.loads(text))
