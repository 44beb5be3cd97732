"""The source that a contender reads."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Generation = Literal["seed", "current"]

PAGE_SIZE = 100
WARM_UP = "warm-up"
"""A catalog of one page, which each server has."""
API_KEY = "octo_live_benchmark"


@dataclass(frozen=True)
class Source:
    """Catalogs of the local server.

    Attributes:
        base_url: The base URL of the server.
        generation: The contract of the server.
        catalogs: The catalogs to read.
        concurrency: The number of catalogs to read at the same time, for contenders that can.
    """

    base_url: str
    generation: Generation
    catalogs: list[str]
    concurrency: int = 8

    def search(self) -> dict[str, Any]:
        """Return the request for the first page of the only catalog."""
        (catalog,) = self.catalogs
        which = {"catalog": catalog} if self.generation == "seed" else {"catalogs": [catalog]}
        return {**which, "limit": PAGE_SIZE}

    def to_json(self) -> str:
        """Return the source as text for a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the source in the text of a command line."""
        return cls(**json.loads(text))
