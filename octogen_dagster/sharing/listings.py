"""Where listings are found: in an exchange, by Octogen's control plane, or written down.

Each of the three is a `ListingSource`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.resource_names import ListingName, checked_exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from octogen_dagster.sharing.analytics_hub import AnalyticsHub
    from octogen_dagster.sharing.octogen_protocols import Cell, ControlPlane, SharedListing


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing as a source knows it.

    Attributes:
        resource: Its resource name.
        catalog_key: The catalog in it; None where only Octogen could say.
        display_name: What its publisher calls it; None where only the exchange could say.
        location: Its BigQuery location.
        suggested_dataset: The id of its linked dataset when nobody chooses another.
        status: Octogen's status of it for one subscriber; None where there is none.
    """

    resource: str
    catalog_key: str | None
    display_name: str | None
    location: str
    suggested_dataset: str
    status: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a source has.

    Attributes:
        listings: Each listing once, in order of their resource names.
        left_out: What cannot be subscribed to: which one it is, and why.
    """

    listings: list[Listing]
    left_out: list[str]


class ListingSource(Protocol):
    """Where listings are found."""

    def listings(self) -> Found:
        """The listings that are there now.

        Raises:
            OctogenError: They cannot be read.
        """


class StaticListings:
    """Listings that are written down.

    Args:
        resources: Their resource names.

    Raises:
        OctogenBigQueryInputError: One of them is not the name of a listing.
    """

    def __init__(self, resources: Iterable[str]) -> None:
        self._listings = _in_order(_listing(resource) for resource in resources)

    def listings(self) -> Found:
        """`ListingSource.listings`."""
        return Found(list(self._listings), [])


class ExchangeListings:
    """The listings of a data exchange. Reading them needs viewer rights on the exchange.

    Args:
        hub: Analytics Hub.
        exchange: `projects/<project>/locations/<location>/dataExchanges/<exchange>`.

    Raises:
        OctogenBigQueryInputError: The exchange has a name that cannot be one.
    """

    def __init__(self, hub: AnalyticsHub, exchange: str) -> None:
        self._hub = hub
        self._exchange = checked_exchange(exchange)

    def listings(self) -> Found:
        """`ListingSource.listings`."""
        from google.cloud import bigquery_analyticshub_v1 as ah

        found, left_out = [], []
        # Reading a field of the wrapper costs twenty times that of the message in it.
        for message in map(ah.Listing.pb, self._hub.listings(self._exchange)):
            try:
                found.append(_listing(message.name, display_name=message.display_name or None))
            except OctogenBigQueryInputError as error:
                left_out.append(f"A listing of exchange {self._exchange}: {error}")
        return Found(_in_order(found), left_out)


class ControlPlaneListings:
    """The listings that Octogen shares with the organisation.

    Args:
        control_plane: Octogen.
        project: The project of a subscriber, for its status of each listing.
        principal: The principal of that subscriber.
        catalogs: The catalogs to look at; none means all.
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
        """`ListingSource.listings`."""
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
                listing = _listing(
                    each.listing_resource or "",
                    catalog_key=each.catalog_key,
                    location=each.location,
                    suggested_dataset=each.linked_dataset,
                    status=status(each),
                )
            except OctogenBigQueryInputError as error:
                left_out.append(f"Catalog {each.catalog_key}: {error}")
            else:
                found.append(listing)
        return Found(_in_order(found), left_out)


def _statuses(
    shared: Sequence[SharedListing], cells: Sequence[Cell]
) -> Callable[[SharedListing], str | None]:
    """What says Octogen's status of a listing: its own cell's, or else that of its catalog."""
    resources = {each.listing_resource for each in shared}
    by_resource = {cell.listing.listing_resource: cell.status for cell in cells}
    by_catalog = {
        cell.listing.catalog_key: cell.status
        for cell in cells
        if cell.listing.listing_resource is None or cell.listing.listing_resource not in resources
    }
    return lambda listing: by_resource.get(
        listing.listing_resource, by_catalog.get(listing.catalog_key)
    )


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


def _in_order(listings: Iterable[Listing]) -> list[Listing]:
    """Each listing once, by resource name."""
    return sorted(
        {each.resource: each for each in listings}.values(), key=lambda each: each.resource
    )
