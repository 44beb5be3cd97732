"""The listings that Octogen shares, with their status for one subscriber."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from octogen_dagster.sharing.octogen_protocols import (
        Cell,
        ControlPlane,
        SharedListing,
        Subscriber,
    )


@dataclass(frozen=True, slots=True)
class SubscriberListing:
    """A listing as Octogen shows it to one subscriber; a part that Octogen did not send is None.

    Attributes:
        catalog_key: The key of the catalog.
        listing_resource: The listing's resource name.
        linked_dataset: The dataset id that Octogen suggests.
        location: The BigQuery location.
        sample_query: A first query to the linked dataset.
        has_cell: True if Octogen keeps a status for this subscriber.
        status: The status.
        reason_code: Octogen's reason for the status.
        share_schema: The schema of the share.
        schema_version: The version of this schema.
    """

    catalog_key: str | None
    listing_resource: str | None = None
    linked_dataset: str | None = None
    location: str | None = None
    sample_query: str | None = None
    has_cell: bool = False
    status: str | None = None
    reason_code: str | None = None
    share_schema: str | None = None
    schema_version: str | None = None

    @classmethod
    def of_listing(cls, listing: SharedListing) -> Self:
        """A listing without a status."""
        return cls(
            catalog_key=listing.catalog_key,
            listing_resource=listing.listing_resource,
            linked_dataset=listing.linked_dataset,
            location=listing.location,
            sample_query=listing.sample_query,
        )

    @classmethod
    def of_cell(cls, cell: Cell, listing: SubscriberListing | None) -> Self:
        """The listing of a cell; parts that the cell leaves out are taken from the listing."""
        merged = asdict(cls.of_listing(cell))
        if listing is not None:
            merged = {name: value or getattr(listing, name) for name, value in merged.items()}
        return replace(
            cls(**merged),
            has_cell=True,
            status=cell.status,
            reason_code=cell.reason_code,
            share_schema=cell.share_schema,
            schema_version=cell.schema_version,
        )


@dataclass(frozen=True, slots=True)
class SubscriberView:
    """The listings that Octogen shows one subscriber.

    Attributes:
        subscriber: The subscriber; None if it is not registered.
        was_registered: True if it was registered before the view was read.
        listings: The listings, ordered by catalog key and resource name.
    """

    subscriber: Subscriber | None
    was_registered: bool
    listings: list[SubscriberListing]


def read_subscriber_view(
    control_plane: ControlPlane,
    shared: Sequence[SharedListing],
    *,
    project: str,
    principal: str,
    catalogs: Sequence[str] = (),
    register: bool = False,
) -> SubscriberView:
    """Read the status of shared listings for one subscriber.

    Args:
        control_plane: Octogen.
        shared: The listings, as `ControlPlane.listings` returned them.
        project: The Google Cloud project of the subscriber.
        principal: The IAM principal of the subscriber.
        catalogs: The keys of the catalogs to include; none means all. A key that Octogen does not
            share is included without a listing.
        register: Register the subscriber if it is missing.

    Raises:
        OctogenMCPError: Octogen sends no result, or refuses the subscriber.
        OctogenConnectionError: Octogen does not respond.
    """
    subscribers, cells = control_plane.subscribers()
    subscriber = next(
        (each for each in subscribers if (each.project, each.principal) == (project, principal)),
        None,
    )
    was_registered = subscriber is not None
    if subscriber is None and register:
        subscriber, cells = control_plane.register(project, principal)
    mine = (
        [cell for cell in cells if cell.subscriber_id == subscriber.subscriber_id]
        if subscriber
        else []
    )
    return SubscriberView(subscriber, was_registered, merged_listings(shared, mine, catalogs))


def merged_listings(
    shared: Iterable[SharedListing], cells: Sequence[Cell], catalogs: Sequence[str] = ()
) -> list[SubscriberListing]:
    """Each listing with its status. No listing and no cell is left out.

    A cell belongs to the listing that it names. One that names no shared listing belongs to a
    listing of its catalog that no other cell names.

    Args:
        shared: The listings.
        cells: The cells of one subscriber.
        catalogs: The keys of the catalogs to include; none means all.
    """
    listings = [SubscriberListing.of_listing(each) for each in shared]
    assigned = _assigned(cells, listings)
    merged = [
        SubscriberListing.of_cell(cell, listing)
        for cell, listing in zip(cells, assigned, strict=True)
    ]
    with_cell = set(assigned)
    merged += [each for each in listings if each not in with_cell]
    if catalogs:
        merged = _selected(merged, catalogs)
    return sorted(
        merged,
        key=lambda each: (each.catalog_key or "", each.listing_resource or "", each.status or ""),
    )


def _assigned(
    cells: Sequence[Cell], listings: Sequence[SubscriberListing]
) -> list[SubscriberListing | None]:
    """The listing of each cell; None for a cell whose catalog has no listing."""
    by_resource = {each.listing_resource: each for each in listings if each.listing_resource}
    by_catalog: defaultdict[str | None, list[SubscriberListing]] = defaultdict(list)
    for each in listings:
        by_catalog[each.catalog_key].append(each)
    assigned = [by_resource.get(cell.listing_resource or "") for cell in cells]
    taken = set(assigned)
    for index, cell in enumerate(cells):
        if assigned[index] is None and cell.catalog_key:
            namesakes = by_catalog[cell.catalog_key]
            free = next((each for each in namesakes if each not in taken), None)
            assigned[index] = free or next(iter(namesakes), None)
            taken.add(assigned[index])
    return assigned


def _selected(
    listings: Iterable[SubscriberListing], catalogs: Sequence[str]
) -> list[SubscriberListing]:
    """The listings of these catalogs; a catalog without one has an entry without a listing."""
    selected = [each for each in listings if each.catalog_key in catalogs]
    missing = set(catalogs) - {each.catalog_key for each in selected}
    return selected + [SubscriberListing(key) for key in missing]
