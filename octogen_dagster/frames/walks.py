"""Decides which whole catalogs are read in several walks at once.

How brands split a catalog is in `partition`; what must be true at the end is in `walk_checks`.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from octogen_dagster.api.estimate import estimate_pages
from octogen_dagster.errors import OctogenAPIError
from octogen_dagster.frames.decode import read_page
from octogen_dagster.frames.partition import MAX_SHARE, REFUSED_STATUSES, partition
from octogen_dagster.frames.plan import FirstPage

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.search import ProductSearch
    from octogen_dagster.frames.plan import PlannedCatalog
    from octogen_dagster.frames.snapshot_brands import SnapshotBrands

MIN_PAGES = 50
"""The smallest catalog that is split, in pages; a smaller one saves too little time."""

_PARTS_PER_THREAD = 4  # so that all threads end at about the same time


@dataclass(frozen=True)
class WalkPlanner:
    """Plans the walks of whole catalogs.

    Attributes:
        search: The search.
        service: The service.
        client: Sends the requests.
        snapshot: The brands of the snapshot that is replaced.
        log: Called with a line about each catalog that is read in several walks.
    """

    search: ProductSearch
    service: CatalogService
    client: BlockingClient
    snapshot: SnapshotBrands
    log: Callable[[str], None]

    def plan(self, catalogs: Sequence[PlannedCatalog]) -> list[list[PlannedCatalog]]:
        """Return the walks of each catalog: it alone, or its parts.

        A catalog is split if one thread would read its pages when the others have long ended.

        Args:
            catalogs: Whole catalogs.

        Raises:
            OctogenError: A request failed.
        """
        threads = self.service.concurrency
        is_possible = threads > 1 and self.search.reads_whole_catalogs
        if not (is_possible and self.service.max_extra_pages_ratio):
            return [[each] for each in catalogs]
        pages = [self._pages(self._products(each)) for each in catalogs]
        return [
            self._walks(catalog, own, own / sum(pages))
            if own >= MIN_PAGES and MAX_SHARE * threads * own >= sum(pages)
            else [catalog]
            for catalog, own in zip(catalogs, pages, strict=True)
        ]

    def _walks(self, catalog: PlannedCatalog, pages: int, share: float) -> list[PlannedCatalog]:
        """Return the walks of a catalog whose page 1 is requested first.

        Page 1 tells the generation of the service and its rate limit, and is the first page of the
        catalog's only walk.
        """
        if not (catalog.brands or self.snapshot.exists):
            return [catalog]
        began = time.monotonic()
        first = self._first_page(catalog)
        seconds = time.monotonic() - began
        if not first.page.uuids:
            return [catalog]
        whole = [replace(catalog, first_page=first)]
        if first.generation != "current" or not first.page.next_cursor:
            return whole
        threads = useful_threads(pages, seconds, self.service)
        limit = math.floor(self.service.max_extra_pages_ratio * pages)
        brands: Mapping[str, int] = self.snapshot.brands(catalog.catalog)
        parts = partition(
            brands or catalog.brands,
            # The source counts its brands as it counts its products.
            self._products(catalog) if brands else catalog.product_count or 0,
            # Each part may have one page that is not full, and page 1 was requested already.
            min(limit, math.ceil(_PARTS_PER_THREAD * threads * share)) if threads > 1 else 1,
        )
        return self._accepted(catalog.split(parts)) or whole

    def _accepted(self, walks: list[PlannedCatalog]) -> list[PlannedCatalog]:
        """Return the walks if the service takes the most demanding request of them, else none."""
        if not walks:
            return []
        demanding = max(walks, key=_demand)
        try:
            first = self._first_page(demanding)
        except OctogenAPIError as error:
            if error.status_code not in REFUSED_STATUSES:
                raise
            self.log(f"{error} The catalog is read in one walk.")
            return []
        self.log(
            f"Catalog {demanding.catalog!r} is read in {len(walks)} walks by brand, up to "
            f"{self.service.concurrency} at a time, with at most {len(walks)} more pages."
        )
        return [replace(walk, first_page=first) if walk is demanding else walk for walk in walks]

    def _first_page(self, catalog: PlannedCatalog) -> FirstPage:
        read_first = functools.partial(read_page, is_first=True)
        page = self.client.page(catalog.request, catalog.subject, 1, read_first)
        return FirstPage(page, self.service.generation)

    def _products(self, catalog: PlannedCatalog) -> int:
        """Return the number of products to expect; 0 if it is not known."""
        count = catalog.expected_rows
        return self.snapshot.rows(catalog.catalog) if count is None else count

    def _pages(self, products: int) -> int:
        return math.ceil(products / self.search.page_size)


def _demand(walk: PlannedCatalog) -> int:
    """Return the number of brands that a walk both asks for and excludes."""
    return len(walk.part.excluded) if walk.part and walk.part.brands else 0


def useful_threads(pages: int, seconds: float, service: CatalogService) -> int:
    """Return the number of threads from which on the rate limit alone decides the time of a read.

    Args:
        pages: The number of pages to read.
        seconds: The time that one page takes.
        service: The service, which has named its rate limit.
    """
    threads = service.concurrency
    wait = estimate_pages([pages], 1, service).limit_seconds
    return min(threads, math.ceil(pages * seconds / wait)) if wait else threads


def in_reading_order(catalogs: Iterable[Sequence[PlannedCatalog]]) -> list[PlannedCatalog]:
    """Return the walks of all catalogs, with the longest ones first if a catalog is split."""
    walks = [walk for each in catalogs for walk in each]
    if any(walk.part for walk in walks):
        walks.sort(key=_expected_products, reverse=True)
    return walks


def _expected_products(walk: PlannedCatalog) -> int:
    return walk.part.products if walk.part else walk.expected_rows or 0
