"""Checks that the pages of a finished read are of one state of each catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.api.catalog_sources import fetch_catalogs
from octogen_dagster.api.paging import INDEXED_AGAIN, IndexedAgainError
from octogen_dagster.errors import OctogenPagingError
from octogen_dagster.frames.decode import read_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogSource
    from octogen_dagster.frames.catalog_read import CatalogRead


def check_unchanged(
    reads: Sequence[CatalogRead], source: CatalogSource, client: BlockingClient
) -> None:
    """Check that no catalog was indexed again while it was read.

    The time at which the service last indexed each catalog is compared with that from before the
    read. If the service does not say it, page 1 is requested again, but only if a later page
    resembled it.

    Raises:
        IndexedAgainError: A catalog was indexed again.
        OctogenPagingError: The service began again at page 1.
        OctogenError: The service fails.
    """
    live = [read for read in reads if read.requested_pages]
    stamps: dict[str, datetime | None] = {}
    if any(read.planned.last_indexed_at for read in live):
        listed = fetch_catalogs(client, source).catalogs
        stamps = {state.catalog: state.last_indexed_at for state in listed}
    for read in live:
        if read.planned.catalog and read.planned.last_indexed_at:
            _compare_stamps(read, stamps.get(read.planned.catalog))
        if read.planned.last_indexed_at is None and read.tracker.may_have_restarted:
            _compare_first_page(read, client)


def _compare_stamps(read: CatalogRead, now: datetime | None) -> None:
    before = read.planned.last_indexed_at
    if now != before:
        raise IndexedAgainError(
            f"{read.planned.subject} was indexed again while it was read (lastIndexedAt was "
            f"{_text(before)} and is {_text(now)}), {INDEXED_AGAIN}"
        )


def _compare_first_page(read: CatalogRead, client: BlockingClient) -> None:
    page = client.page(read.planned.request, read.planned.subject, 1, read_page)
    try:
        read.tracker.check_first_page(page)
    except OctogenPagingError:
        read.failed = True
        raise


def _text(stamp: datetime | None) -> str:
    return stamp.isoformat() if stamp else "unknown"
