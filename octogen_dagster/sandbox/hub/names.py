"""The resource names of Analytics Hub, and the refusal of one that is not valid."""

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
    """A call of Analytics Hub is refused.

    Args:
        code: The name of a gRPC code.
        message: The message for the client.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class ExchangeName:
    """The name of a data exchange. `project` is an id, or a number that was not looked up."""

    project: str
    location: str
    exchange: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse a resource name. Raises Refusal if it is not valid."""
        return cls(*_match(_EXCHANGE, name, "data exchange"))

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/dataExchanges/{self.exchange}"


@dataclass(frozen=True)
class ListingName:
    """The name of a listing. `project` is an id, or a number that was not looked up."""

    project: str
    location: str
    exchange: str
    listing: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse a resource name. Raises Refusal if it is not valid."""
        return cls(*_match(_LISTING, name, "listing"))

    @property
    def in_exchange(self) -> ExchangeName:
        """The name of the exchange that the listing is in."""
        return ExchangeName(self.project, self.location, self.exchange)

    def __str__(self) -> str:
        return f"{self.in_exchange}/listings/{self.listing}"


def project_number(project: str) -> str:
    """Return the number of a project: twelve digits, the same in every process."""
    digest = hashlib.sha256(project.encode()).digest()
    return str(10**11 + int.from_bytes(digest[:8], "big") % (9 * 10**11))


def parse_parent(name: str) -> tuple[str, str]:
    """Return the project and the location in `projects/<project>/locations/<location>`.

    Raises:
        Refusal: The name is not valid.
    """
    project, location = _match(_LOCATION, name, "location")
    return project, location


def is_dataset_id(text: str) -> bool:
    """Return True if BigQuery accepts `text` as the id of a dataset."""
    return _DATASET_ID.fullmatch(text) is not None


def is_project_id(text: str) -> bool:
    """Return True if Google Cloud accepts `text` as the id of a project."""
    return _PROJECT_ID.fullmatch(text) is not None


def _match(pattern: re.Pattern[str], name: str, what: str) -> tuple[str, ...]:
    match = pattern.fullmatch(name)
    if match is None:
        raise Refusal("INVALID_ARGUMENT", f"Invalid {what} resource name: {name!r}.")
    return match.groups()
