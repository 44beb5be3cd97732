"""Parses and checks names in Analytics Hub, and plans subscriptions. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from octogen_dagster.errors import OctogenBigQueryInputError

TABLE = "products_current_v1"
"""The table inside every linked dataset."""

# Google's ids contain letters, digits and underscores. Hyphens and single dots are harmless as
# well, but two dots are not allowed in a partition key.
_PROJECT = re.compile(r"(?!.*\.\.)[A-Za-z0-9._:-]{1,100}")
_LOCATION = re.compile(r"[A-Za-z0-9-]{1,100}")
_ID = re.compile(r"(?!.*\.\.)[\w.-]{1,100}")
_DATASET_ID = re.compile(r"[A-Za-z0-9_]{1,1024}")

_PARTS = {
    "projects": ("project", _PROJECT),
    "locations": ("location", _LOCATION),
    "dataExchanges": ("exchange", _ID),
    "listings": ("listing", _ID),
}
"""Maps each keyword in a listing's resource name to the next part's name and pattern."""


ListingKey = tuple[str, str, str]
"""The type of `ListingName.key`, which identifies a listing."""


@dataclass(frozen=True, slots=True)
class ListingName:
    """The parsed resource name of a listing."""

    project: str  # id or number
    location: str
    exchange: str
    listing: str

    @classmethod
    def parse(cls, resource: str) -> Self:
        """Parse `projects/…/locations/…/dataExchanges/…/listings/…`, ignoring outer whitespace."""
        return cls(*_parse(resource, "listing"))

    def __str__(self) -> str:
        return (
            f"projects/{self.project}/locations/{self.location}/dataExchanges/{self.exchange}"
            f"/listings/{self.listing}"
        )

    @property
    def key(self) -> ListingKey:
        """An identifier for the listing: the location, the exchange id and the listing id.

        The project is omitted, because Google uses the publisher's project id in some places and
        the project number in others. As a result, listings from two publishers have the same key if
        all other parts are equal.
        """
        return self.location.lower(), self.exchange, self.listing

    @property
    def default_dataset_id(self) -> str:
        """`octogen_<listing id>`. Characters that BigQuery does not allow are replaced with `_`."""
        return f"octogen_{re.sub('[^A-Za-z0-9_]', '_', self.listing)}"


@dataclass(frozen=True, slots=True)
class SubscriptionPlan:
    """Settings for a new subscription and its linked dataset."""

    listing: ListingName
    project: str
    dataset_id: str
    location: str
    friendly_name: str


def plan_subscription(
    listing_resource: str,
    project: str,
    dataset_id: str | None = None,
    location: str | None = None,
    friendly_name: str | None = None,
) -> SubscriptionPlan:
    """Plan a subscription to a listing. Omitted arguments are derived from the listing's name."""
    listing = ListingName.parse(listing_resource)
    dataset_id = checked_dataset_id(dataset_id or listing.default_dataset_id)
    return SubscriptionPlan(
        listing=listing,
        project=checked_project(project),
        dataset_id=dataset_id,
        location=location or listing.location,
        friendly_name=friendly_name or f"Octogen {dataset_id}",
    )


def checked_exchange(resource: str) -> str:
    """Check an exchange's resource name, and return it without surrounding whitespace."""
    _parse(resource, "exchange")
    return resource.strip()


def checked_dataset_id(dataset_id: str) -> str:
    """Check a dataset id."""
    if not _DATASET_ID.fullmatch(dataset_id):
        raise OctogenBigQueryInputError(
            f"Dataset id {dataset_id[:100]!r} is invalid. Use 1 to 1,024 letters, digits and "
            "underscores, without a project prefix."
        )
    return dataset_id


def checked_project(project: str) -> str:
    """Check a Google Cloud project id or number."""
    if not _PROJECT.fullmatch(project):
        raise OctogenBigQueryInputError(
            f"Project {project[:100]!r} is invalid. Use your Google Cloud project id, such as "
            "my-project-123."
        )
    return project


def sample_query(project: str, dataset_id: str) -> str:
    """Return a sample query for a linked dataset."""
    return f"SELECT * FROM `{project}.{dataset_id}.{TABLE}` LIMIT 10;"  # noqa: S608


def _parse(resource: str, kind: str) -> list[str]:
    """Parse the resource name of a listing or an exchange, and return its parts."""
    words = resource.strip().split("/")
    expected = [each for each in _PARTS.items() if kind == "listing" or each[0] != "listings"]
    problem = f"it continues after the {kind}" if len(words) > 2 * len(expected) else None
    for index, (word, (part, pattern)) in reversed(list(enumerate(expected))):
        found, value = [*words, *[""] * 8][2 * index : 2 * index + 2]
        if found != word:
            problem = f"{word}/<{part}> is missing"
        elif not pattern.fullmatch(value):
            problem = f"the {part} {repr(value[:100]) + ' is invalid' if value else 'is missing'}"
    if problem:
        form = "/".join(f"{word}/<{part}>" for word, (part, _) in expected)
        raise OctogenBigQueryInputError(
            f"{resource[:300]!r} is not the name of {'an' if kind == 'exchange' else 'a'} {kind}: "
            f"{problem}. The expected form is {form}. Copy the name from the Platform's "
            "BigQuery page or from Octogen's MCP server."
        )
    return words[1::2]
