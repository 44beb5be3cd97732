"""Sources of listings: an exchange, Octogen's control plane, or names that are written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.resource_names import ListingName, checked_exchange
from octogen_dagster.sharing.status import decisive_status
from octogen_dagster.sharing.verdict import NOT_GRANTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from octogen_dagster.sharing.analytics_hub import AnalyticsHub
    from octogen_dagster.sharing.octogen_protocols import Cell, ControlPlane, SharedListing

_PUBSUB_TOPIC = 2  # of ah.SharedResourceType
_COVERAGE_PREFIX = "coverage_"
_TAKE_ALL = "To subscribe to such listings too, set only_catalogs=False."


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing as a source knows it.

    Attributes:
        resource: Its resource name.
        catalog_key: The key of its catalog; None from a source other than Octogen.
        display_name: The publisher's name for it; None from a source other than the exchange.
        location: Its BigQuery location.
        suggested_dataset: The id of its linked dataset, unless another one is chosen.
        status: Octogen's status of it for one subscriber, or its reason code if that decides; empty
            if Octogen has none for this listing, and None if the source has none or the subscriber
            is not registered.
    """

    resource: str
    catalog_key: str | None
    display_name: str | None
    location: str
    suggested_dataset: str
    status: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """The listings of a source.

    Attributes:
        listings: Each listing once, ordered by resource name.
        left_out: Messages about listings that are left out, with the reason.
        notes: Messages about listings that are taken.
    """

    listings: list[Listing]
    left_out: list[str]
    notes: list[str] = field(default_factory=list)


class StaticListings:
    """Listings whose names are written down.

    Args:
        resources: The resource names.

    Raises:
        OctogenBigQueryInputError: A text is not the name of a listing.
    """

    def __init__(self, resources: Iterable[str]) -> None:
        self._listings = _ordered(_listing(resource) for resource in resources)

    def listings(self) -> Found:
        """Read the listings that exist now.

        Raises:
            OctogenError: The listings cannot be read.
        """
        return Found(list(self._listings), [])


class ExchangeListings:
    """The listings of a data exchange. Reading them needs viewer rights on the exchange.

    A listing that cannot become a linked dataset is always left out: it shares a Pub/Sub topic, or
    nothing but its metadata.

    Args:
        hub: Analytics Hub.
        exchange: `projects/<project>/locations/<location>/dataExchanges/<exchange>`.
        only_catalogs: Leave out commercial listings and those of coverage lists too.

    Raises:
        OctogenBigQueryInputError: The name of the exchange is invalid.
    """

    def __init__(self, hub: AnalyticsHub, exchange: str, *, only_catalogs: bool = True) -> None:
        self._hub = hub
        self._exchange = checked_exchange(exchange)
        self._only_catalogs = only_catalogs

    def listings(self) -> Found:
        """Read the listings that exist now.

        Raises:
            OctogenError: The listings cannot be read.
        """
        from google.cloud import bigquery_analyticshub_v1 as ah

        found, left_out, notes = [], [], []
        # A field of the protobuf message is 20 times as fast to read as one of its wrapper.
        for message in map(ah.Listing.pb, self._hub.listings(self._exchange)):
            try:
                listing = _listing(message.name, display_name=message.display_name or None)
            except OctogenBigQueryInputError as error:
                left_out.append(f"A listing of exchange {self._exchange}: {error}")
                continue
            problem = _problem(message, only_catalogs=self._only_catalogs)
            if problem:
                left_out.append(f"Listing {listing.resource}: {problem}")
                continue
            found.append(listing)
            if message.log_linked_dataset_query_user_email:
                notes.append(
                    f"Listing {listing.resource} shows its publisher the e-mail address of "
                    "everyone who queries its linked dataset: tell them."
                )
        return Found(_ordered(found), left_out, notes)


def _problem(message: Any, *, only_catalogs: bool) -> str | None:
    """Why a listing of an exchange is left out, or None if it is taken.

    Args:
        message: The protobuf message of the listing.
        only_catalogs: Take catalogs only. The rest is told by what is known not to be a catalog:
            Octogen may name the listings of catalogs in another way than today.
    """
    if message.resource_type == _PUBSUB_TOPIC or message.HasField("pubsub_topic"):
        return "it shares a Pub/Sub topic, which cannot become a linked dataset."
    if message.allow_only_metadata_sharing:
        return "it shares its metadata only, and cannot be subscribed to."
    if not only_catalogs:
        return None
    if message.HasField("commercial_info"):
        return f"it is sold on Google Cloud Marketplace. {_TAKE_ALL}"
    if message.name.rpartition("/")[2].startswith(_COVERAGE_PREFIX):
        return f"it is a coverage list, and no catalog. {_TAKE_ALL}"
    return None


class ControlPlaneListings:
    """The listings that Octogen shares with the organisation.

    Args:
        control_plane: Octogen.
        project: The project of the subscriber whose status is read.
        principal: The principal of that subscriber.
        catalogs: The keys of the catalogs to look at; none means all.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        *,
        project: str,
        principal: str,
        catalogs: Sequence[str] = (),
    ) -> None:
        self._control_plane = control_plane
        self._project = project
        self._principal = principal
        self._catalogs = list(catalogs)

    def listings(self) -> Found:
        """Read the listings that exist now.

        Raises:
            OctogenError: The listings cannot be read.
        """
        shared = self._control_plane.listings(self._catalogs)
        subscribers, cells = self._control_plane.subscribers()
        mine = {
            each.subscriber_id
            for each in subscribers
            if (each.project, each.principal) == (self._project, self._principal)
        }
        status = _statuses(shared, [cell for cell in cells if cell.subscriber_id in mine])
        found, left_out = [], []
        for each in shared:
            try:
                found.append(
                    _listing(
                        each.listing_resource or "",
                        catalog_key=each.catalog_key,
                        location=each.location,
                        suggested_dataset=each.linked_dataset,
                        status=(status(each) or "") if mine else None,
                    )
                )
            except OctogenBigQueryInputError as error:
                left_out.append(f"Catalog {each.catalog_key}: {error}")
        granted = {each.catalog_key for each in shared}
        left_out += [
            f"Catalog {key}: {NOT_GRANTED}" for key in self._catalogs if key not in granted
        ]
        return Found(_ordered(found), left_out)


def _statuses(
    shared: Sequence[SharedListing], cells: Sequence[Cell]
) -> Callable[[SharedListing], str | None]:
    """A function from a listing to its status: that of its own cell, or else of its catalog."""
    resources = {each.listing_resource for each in shared}
    by_resource = {cell.listing_resource: _status(cell) for cell in cells}
    by_catalog = {
        cell.catalog_key: _status(cell)
        for cell in cells
        if cell.listing_resource is None or cell.listing_resource not in resources
    }
    return lambda listing: by_resource.get(
        listing.listing_resource, by_catalog.get(listing.catalog_key)
    )


def _status(cell: Cell) -> str | None:
    return decisive_status(cell.status, cell.reason_code)


def _listing(
    resource: str,
    *,
    catalog_key: str | None = None,
    display_name: str | None = None,
    location: str | None = None,
    suggested_dataset: str | None = None,
    status: str | None = None,
) -> Listing:
    name = ListingName.parse(resource)
    return Listing(
        resource=str(name),
        catalog_key=catalog_key,
        display_name=display_name,
        location=location or name.location,
        suggested_dataset=suggested_dataset or name.default_dataset_id,
        status=status,
    )


def _ordered(listings: Iterable[Listing]) -> list[Listing]:
    """Each listing once, ordered by resource name."""
    return sorted(
        {each.resource: each for each in listings}.values(), key=lambda each: each.resource
    )
