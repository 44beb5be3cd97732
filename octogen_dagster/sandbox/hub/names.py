"""The resource names of Analytics Hub: what they look like, and what a bad one is answered."""

import hashlib
import re
from dataclasses import dataclass

from typing_extensions import Self

_LOCATION = re.compile(r"projects/([^/]+)/locations/([^/]+)")
_EXCHANGE = re.compile(rf"{_LOCATION.pattern}/dataExchanges/([^/]+)")
_LISTING = re.compile(rf"{_EXCHANGE.pattern}/listings/([^/]+)")
_DATASET_ID = re.compile(r"[A-Za-z0-9_]{1,1024}")
_PROJECT_ID = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")


class Refusal(Exception):
    """A call of Analytics Hub that is not done.

    Args:
        code: The name of a gRPC code.
        message: What the client reads.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class ExchangeName:
    """A data exchange; `project` is an id, or a number as long as nobody looked it up."""

    project: str
    location: str
    exchange: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a resource name. Raises Refusal when it is none."""
        return cls(*_match(_EXCHANGE, name, "data exchange"))

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/dataExchanges/{self.exchange}"


@dataclass(frozen=True)
class ListingName:
    """A listing; `project` is an id, or a number as long as nobody looked it up."""

    project: str
    location: str
    exchange: str
    listing: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a resource name. Raises Refusal when it is none."""
        return cls(*_match(_LISTING, name, "listing"))

    @property
    def in_exchange(self) -> ExchangeName:
        return ExchangeName(self.project, self.location, self.exchange)

    def __str__(self) -> str:
        return f"{self.in_exchange}/listings/{self.listing}"


def project_number(project: str) -> str:
    """The number of the project with an id: twelve digits, the same in every process."""
    digest = hashlib.sha256(project.encode()).digest()
    return str(10**11 + int.from_bytes(digest[:8], "big") % (9 * 10**11))


def parse_parent(name: str) -> tuple[str, str]:
    """The project and the location of `projects/<project>/locations/<location>`.

    Raises:
        Refusal: It is no such name.
    """
    project, location = _match(_LOCATION, name, "location")
    return project, location


def is_dataset_id(text: str) -> bool:
    return _DATASET_ID.fullmatch(text) is not None


def is_project_id(text: str) -> bool:
    return _PROJECT_ID.fullmatch(text) is not None


def _match(pattern: re.Pattern[str], name: str, what: str) -> tuple[str, ...]:
    match = pattern.fullmatch(name)
    if match is None:
        raise Refusal("INVALID_ARGUMENT", f"Invalid {what} resource name: {name!r}.")
    return match.groups()
