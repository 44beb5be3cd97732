"""Names of listings, exchanges, projects and datasets in Google Cloud. No I/O."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from typing_extensions import Self

from octogen_dagster.errors import OctogenBigQueryInputError

TABLE = "products_current_v1"
"""The table inside every linked dataset."""

_FORM = "projects/<project>/locations/<location>/dataExchanges/<exchange>/listings/<listing>"
_EXCHANGE_FORM = _FORM.rpartition("/listings/")[0]
_COLLECTIONS = {
    "projects": "project",
    "locations": "location",
    "dataExchanges": "exchange",
    "listings": "listing",
}
_PROJECT = re.compile(r"(?!.*\.\.)[A-Za-z0-9._:-]{1,100}")
_LOCATION = re.compile(r"[A-Za-z0-9-]{1,100}")
# Google's ids have letters, digits and underscores. Hyphens and single dots are harmless as well,
# but two dots are not allowed in a partition key.
_ID = re.compile(r"(?!.*\.\.)[\w.-]+")
_MAX_ID_BYTES = 100
_MAX_DATASET_ID = 1024
_DATASET_ID = re.compile(rf"[A-Za-z0-9_]{{1,{_MAX_DATASET_ID}}}")


@dataclass(frozen=True, slots=True)
class ListingName:
    """The parsed resource name of a listing.

    Attributes:
        project: The publisher's project, by id or by number.
        location: The BigQuery location, such as `us`.
        exchange: The id of the data exchange.
        listing: The id of the listing in it.
    """

    project: str
    location: str
    exchange: str
    listing: str

    @classmethod
    def parse(cls, resource: str) -> Self:
        """Parse `projects/…/locations/…/dataExchanges/…/listings/…`.

        Args:
            resource: The name; blanks around it are ignored.

        Raises:
            OctogenBigQueryInputError: The text is not the name of a listing.
        """
        return cls(*_parts(resource, "listing", _FORM))

    def __str__(self) -> str:
        return f"{exchange_name(self)}/listings/{self.listing}"

    def matches(self, other: ListingName) -> bool | None:
        """True if both names are of one listing.

        Returns:
            None if names alone do not tell: one has the project's id, the other its number.
        """
        if self.without_project != other.without_project:
            return False
        if self.project == other.project:
            return True
        return None if self.project.isdecimal() != other.project.isdecimal() else False

    @property
    def without_project(self) -> tuple[str, str, str]:
        """The parts that do not depend on whether the project is named by id or by number."""
        return self.location.lower(), self.exchange, self.listing

    @property
    def default_dataset_id(self) -> str:
        """The id of its linked dataset, unless another one is chosen.

        It is `octogen_<listing id>` with `_` for each character that BigQuery does not allow. What
        that leaves of an id without ASCII letters says little, so it gets a digest.
        """
        cleaned = re.sub(r"[^A-Za-z0-9_]", "_", self.listing)
        dataset_id = f"octogen_{cleaned}"
        if cleaned == self.listing or re.search("[A-Za-z]", cleaned):
            return dataset_id
        return self.distinct_dataset_id(dataset_id)

    def distinct_dataset_id(self, dataset_id: str) -> str:
        """A dataset id with a digest of this name, which no other listing gets.

        Args:
            dataset_id: The id that another listing may have too.
        """
        digest = hashlib.sha256(str(self).encode()).hexdigest()[:8]
        return f"{dataset_id[: _MAX_DATASET_ID - 9]}_{digest}"


def exchange_name(listing: ListingName) -> str:
    """The resource name of the exchange of a listing."""
    return (
        f"projects/{listing.project}/locations/{listing.location}/dataExchanges/{listing.exchange}"
    )


def checked_exchange(resource: str) -> str:
    """Check the resource name of an exchange, and remove blanks around it.

    Args:
        resource: The name.

    Raises:
        OctogenBigQueryInputError: The text is not the name of an exchange.
    """
    _parts(resource, "exchange", _EXCHANGE_FORM)
    return resource.strip()


def checked_dataset_id(dataset_id: str) -> str:
    """Check the id of a dataset.

    Args:
        dataset_id: The id, without a project.

    Raises:
        OctogenBigQueryInputError: The id is invalid in BigQuery.
    """
    if not _DATASET_ID.fullmatch(dataset_id):
        raise OctogenBigQueryInputError(
            f"Dataset id {dataset_id[:100]!r} is invalid: give 1 to 1,024 letters, digits and "
            "underscores, without a project in front."
        )
    return dataset_id


def checked_project(project: str) -> str:
    """Check the id or number of a Google Cloud project.

    Args:
        project: The id or number.

    Raises:
        OctogenBigQueryInputError: The text is neither.
    """
    if not _PROJECT.fullmatch(project):
        raise OctogenBigQueryInputError(
            f"Project {project[:100]!r} is invalid: give the id of your own Google Cloud project, "
            "such as my-project-123."
        )
    return project


def sample_query(project: str, dataset_id: str) -> str:
    """A first query to a linked dataset.

    Args:
        project: The project of the dataset.
        dataset_id: The id of the dataset.
    """
    return f"SELECT * FROM `{project}.{dataset_id}.{TABLE}` LIMIT 10;"  # noqa: S608


def _parts(resource: str, kind: str, form: str) -> list[str]:
    """The values between the fixed words of a resource name."""
    words = resource.strip().split("/")
    expected = form.split("/")
    problem = None if len(words) <= len(expected) else f"it continues after the {kind}"
    for index in reversed(range(0, len(expected), 2)):
        part = _COLLECTIONS[expected[index]]
        value = words[index + 1] if index + 1 < len(words) else ""
        if words[index : index + 1] != [expected[index]]:
            problem = f"{expected[index]}/<{part}> is missing"
        elif not _is_valid(part, value):
            problem = f"the {part} {repr(value[:100]) + ' is invalid' if value else 'is missing'}"
    if problem:
        raise OctogenBigQueryInputError(
            f"{resource[:300]!r} is not the name of {'an' if kind == 'exchange' else 'a'} {kind}: "
            f"{problem}. It has the form {form}; the Platform's BigQuery page and Octogen's MCP "
            "show it."
        )
    return words[1::2]


def _is_valid(part: str, value: str) -> bool:
    if part == "project":
        return _PROJECT.fullmatch(value) is not None
    if part == "location":
        return _LOCATION.fullmatch(value) is not None
    return _ID.fullmatch(value) is not None and len(value.encode()) <= _MAX_ID_BYTES
