"""Plans a read: selects the catalogs, and decides which ones to read together or in parts.

In the current API contract, a filtered search can specify up to 500 catalogs in one request, so ten
hits in 200 shops cost one page instead of 200. Each whole catalog is read in a separate pass over
its pages. A large catalog is split by the brands in its latest snapshot (`partition`), and each
part is read in a separate pass. The service must be able to count the catalog's products, because
the count shows at the end whether any are missing. Plans do not depend on the clock, so that a
retry finds the pages that were saved for each pass.
"""

from __future__ import annotations

import functools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.api.catalog_sources import GrantedCatalogs, several_of_a_host
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.estimate import estimate_pages
from octogen_dagster.api.search import MAX_CATALOGS, MAX_PAGE_SIZE, ProductSearch
from octogen_dagster.errors import (
    OctogenError,
    OctogenNotFoundError,
    OctogenSnapshotError,
    Persistence,
)
from octogen_dagster.reading.partition import MAX_SHARE, partition
from octogen_dagster.reading.walk import Walk, resumed

if TYPE_CHECKING:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.reading.pages import PageStore
    from octogen_dagster.reading.pushdown import Pushdown

    ListCatalogs = Callable[[], Sequence[CatalogState] | None]
    Log = Callable[[str], None]

_LOGGER = logging.getLogger(__name__)
_BRAND = pl.col("brand").struct.field("name")
MIN_PAGES = 50
"""The minimum number of pages for splitting a catalog.

Splitting a smaller catalog saves little time.
"""
_PARTS_PER_THREAD = 4  # so that all threads finish at about the same time


@dataclass(frozen=True)
class ReadPlan:
    """The passes that make up a read, in the order in which they start."""

    search: ProductSearch
    walks: list[Walk]
    started_at: datetime

    @property
    def states(self) -> dict[str, CatalogState]:
        """The known catalogs by key."""
        return {state.catalog: state for walk in self.walks for state in walk.catalogs}

    @property
    def expected_rows(self) -> int | None:
        """The expected number of rows; None if it is unknown or if the search has filters."""
        rows = [walk.expected_rows for walk in self.whole_catalogs]
        known = [each for each in rows if each is not None]
        is_known = self.search.reads_whole_catalogs and len(known) == len(rows)
        return sum(known) if is_known else None

    @property
    def rows_per_product(self) -> float | None:
        """The ratio of expected rows to counted products; None if a catalog has never been read."""
        expected, products = self.expected_rows, sum(self.product_counts.values())
        known = [walk.rows_per_product is not None for walk in self.whole_catalogs]
        return expected / products if expected and products and all(known) else None

    @property
    def product_counts(self) -> dict[str, int]:
        """The source's product counts by catalog. Catalogs with an unknown count are omitted."""
        counts = {key: state.product_count for key, state in self.states.items()}
        return {key: count for key, count in counts.items() if count is not None}

    def estimate(self, service: CatalogService) -> str | None:
        """Describe the expected requests, cost and time; None if the row count is unknown."""
        if not self.walks or self.expected_rows is None:
            return None
        counts = [walk.expected_rows or 0 for walk in self.whole_catalogs]
        subject = f"Catalog {self.walks[0].catalog!r}"
        if len(counts) > 1:
            subject = f"{len(counts):,} catalogs"
        saved = sum(walk.saved.pages for walk in self.walks if walk.saved)
        estimate = estimate_pages(counts, self.search.page_size, service, saved_pages=saved)
        more = f"; {saved:,} more pages are already saved" if saved else ""
        return f"{subject}: {estimate}{more}."

    def small_page_warning(self, service: CatalogService) -> str | None:
        """Return a warning if the page size is below the maximum, which increases the cost."""
        page_size = self.search.page_size
        if page_size >= MAX_PAGE_SIZE or not service.spending.prices.search_page_usd:
            return None
        return (
            f"page_size is {page_size}. A page costs the same regardless of its size, so this read "
            f"costs {MAX_PAGE_SIZE / page_size:.3g} times as much as a read with page_size "
            f"{MAX_PAGE_SIZE}."
        )

    @property
    def whole_catalogs(self) -> list[Walk]:
        """One pass for each catalog. For a split catalog, this is the pass for one of its parts."""
        return list({walk.catalog: walk for walk in self.walks}.values())


def plan_walks(
    search: ProductSearch,
    client: BlockingClient,
    listed: Sequence[CatalogState] | None,
    pushdown: Pushdown,
    *,
    source_is_granted: bool,
    merges: bool = True,
) -> list[Walk]:
    """Plan the passes over a search's catalogs.

    Each pass covers one catalog. If the search has filters, a pass can cover up to 500 catalogs.
    `listed` contains the source's catalogs if the source has a list and the read needs it. If
    `merges` is False, each catalog is read separately even if the search has filters, so that a
    query's predicate does not change the order of the rows.
    """
    named = {*search.catalogs}
    known = {state.catalog: state for state in listed or () if state.catalog in named}
    states = [known.get(key) or CatalogState(key) for key in search.catalogs]
    if reads_list(search, source_is_granted=source_is_granted) and listed is not None:
        states = list(listed)
    elif not search.catalogs:
        return [Walk(search.request(None))]
    if pushdown.catalogs is not None:
        # The service and the search can spell a key in different case.
        wanted = {key.casefold() for key in pushdown.catalogs}
        states = [state for state in states if state.catalog.casefold() in wanted]
    if (
        merges
        and search.has_filters
        and len(states) > 1
        and _takes_many(search, client, states, source_is_granted=source_is_granted)
    ):
        batches = (states[at : at + MAX_CATALOGS] for at in range(0, len(states), MAX_CATALOGS))
        return [
            Walk(search.request(catalogs=[state.catalog for state in batch]), tuple(batch))
            for batch in batches
        ]
    return [Walk(search.request(state.catalog), (state,)) for state in states]


def reads_list(search: ProductSearch, *, source_is_granted: bool) -> bool:
    """True if the read needs the list of the source's catalogs.

    A search with `max_products` over all granted catalogs is sent as a single request, so that the
    best products come first.
    """
    is_capped = search.max_products is not None
    return not search.catalogs and not (is_capped and source_is_granted)


def _takes_many(
    search: ProductSearch,
    client: BlockingClient,
    states: Sequence[CatalogState],
    *,
    source_is_granted: bool,
) -> bool:
    """True if the service accepts several catalogs in one request, as in the current API contract.

    Only the older (seed) contract lists index times. If the contract is unknown, a free count
    request determines it, because the seed contract has no count requests.
    """
    if _is_current(client):
        return True
    if source_is_granted and any(state.last_indexed_at for state in states):
        return False
    try:
        client.count_products(search, [state.catalog for state in states[:MAX_CATALOGS]])
    except OctogenError as error:
        if error.persistence is not Persistence.PERMANENT:
            raise  # reading each catalog separately could cost hundreds of requests
        return _is_current(client)
    return True


def _is_current(client: BlockingClient) -> bool:
    return client.service.generation == "current"


def list_for(
    search: ProductSearch,
    service: CatalogService,
    client: BlockingClient,
    warn: Log = _LOGGER.warning,
    *,
    capped: bool = False,
    is_of_run: bool = False,
) -> Sequence[CatalogState] | None:
    """Return the source's catalogs, or None if the service cannot list catalogs.

    If the read is not possible without the list, raise an error instead of returning None. `capped`
    is True if the query needs only some of the rows. If `is_of_run` is True, all reads in a run
    share one list.
    """
    listing = service.listing
    try:
        listed = (
            listing.of_run(client) if is_of_run else listing.fetched_since(service.clock(), client)
        )
    except OctogenNotFoundError as error:
        if search.catalogs:
            return None
        if not isinstance(service.catalog_source, GrantedCatalogs):
            raise
        if not capped:
            _refuse_all_of_octogen(search, service, error)
        return None
    if listed.failure and not search.catalogs:  # or some catalogs' products would be missing
        raise listed.failure
    shared = () if search.catalogs else several_of_a_host(service, listed.catalogs)
    for line in (*listed.warnings, *shared):
        warn(line)
    return listed.catalogs


def _refuse_all_of_octogen(
    search: ProductSearch, service: CatalogService, error: OctogenNotFoundError
) -> None:
    """Reject a search that would read all of Octogen's catalogs, unless a budget limits it."""
    is_narrow = bool(search.has_keywords or search.facets or search.max_products)
    if is_narrow or service.spending.left_usd is not None:
        return
    raise error.with_message(
        f"{error} Because no catalogs are specified, the search would read all of Octogen's "
        "catalogs, and each page is charged. Narrow the search with q, facets or max_products, or "
        "set OctogenResource(budget_usd=...). Run `octogen-dagster estimate` to see the cost of a "
        "read."
    ) from None


class SnapshotBrands:
    """Counts the latest snapshot's rows for each catalog and brand.

    The counts are computed on first use. A snapshot that cannot be read is ignored.
    """

    def __init__(self, latest: Callable[[], pl.LazyFrame | None], warn: Log) -> None:
        self._latest = latest
        self._warn = warn

    def of(self, catalog: str | None) -> Mapping[str | None, int]:
        """Return a catalog's row counts by brand name."""
        return self._counts.get((catalog or "").casefold(), {})

    @functools.cached_property
    def _counts(self) -> Mapping[str, Mapping[str | None, int]]:
        counts: defaultdict[str, dict[str | None, int]] = defaultdict(dict)
        try:
            frame = self._latest()
            if frame is not None:
                rows = frame.group_by("catalog_key", _BRAND).len().collect(engine="streaming")
                for catalog, brand, number in rows.rows():  # the key's case can vary
                    of_catalog = counts[(catalog or "").casefold()]
                    of_catalog[brand] = of_catalog.get(brand, 0) + number
        except (OctogenSnapshotError, pl.exceptions.PolarsError, OSError) as error:
            self._warn(f"Cannot use the latest snapshot's brands to split catalogs: {error}")
        return counts


def split_large(
    walks: Sequence[Walk],
    search: ProductSearch,
    service: CatalogService,
    client: BlockingClient,
    *,
    brands: SnapshotBrands,
    log: Log,
) -> list[list[Walk]]:
    """Split large catalogs into parts, and return the passes for each catalog.

    A catalog is split if one thread would still be reading it long after the other threads have
    finished.
    """
    threads = service.concurrency
    if threads < 2 or not (search.reads_whole_catalogs and service.max_extra_pages_percent):
        return [[walk] for walk in walks]
    products = [_products(walk, search, brands) for walk in walks]
    pages = [math.ceil(count / search.page_size) for count in products]
    split = []
    total = sum(pages)
    for walk, count, size in zip(walks, products, pages, strict=True):
        parts: list[Walk] = []
        if size >= MIN_PAGES and MAX_SHARE * threads * size >= total:
            limit = math.floor(service.max_extra_pages_percent * size / 100)
            useful = math.ceil(_PARTS_PER_THREAD * threads * size / total)
            # A power of two, so that a retry creates the same parts if other catalogs have changed.
            useful = 1 << (useful.bit_length() - 1)
            parts = _parts(walk, count, min(limit, useful), threads, brands)
        if parts and _is_counted(parts, client, log):
            log(
                f"Catalog {walk.catalog!r} is split by brand and read in {len(parts)} parts. Up to "
                f"{threads} parts are read at the same time. This adds at most {len(parts)} pages."
            )
            split.append(parts)
        else:
            split.append([walk])
    return split


def in_reading_order(catalogs: Iterable[Sequence[Walk]]) -> list[Walk]:
    """Return all passes in the order in which they start: longest first if a catalog is split."""
    walks = [walk for each in catalogs for walk in each]
    if any(walk.part for walk in walks):
        walks.sort(
            key=lambda walk: walk.part.products if walk.part else walk.expected_rows or 0,
            reverse=True,
        )
    return walks


def plan_with_store(
    search: ProductSearch,
    catalogs: Sequence[Sequence[Walk]],
    store: PageStore,
    client: BlockingClient,
    log: Log,
) -> ReadPlan:
    """Plan a read that resumes from saved pages and saves the pages that it requests."""
    store.begin()
    walks = in_reading_order([resumed(walks, store, client, log) for walks in catalogs])
    began = [walk.saved.started_at for walk in walks if walk.saved and walk.saved.pages]
    return ReadPlan(search, walks, min([store.now(), *began]))


def _products(walk: Walk, search: ProductSearch, brands: SnapshotBrands) -> int:
    """Return the expected number of products.

    The number comes from the latest snapshot. A retry uses the same snapshot, so it splits the
    catalog in the same way.
    """
    expected = walk.expected_rows
    if expected is not None and 2 * expected < MIN_PAGES * search.page_size:
        return expected
    return sum(brands.of(walk.catalog).values()) or expected or 0


def _parts(
    walk: Walk, products: int, max_parts: int, threads: int, brands: SnapshotBrands
) -> list[Walk]:
    known = {brand: rows for brand, rows in brands.of(walk.catalog).items() if brand is not None}
    if not known:
        # The source counts brands and products in the same unit.
        known, products = dict(walk.catalogs[0].brands), walk.product_count or 0
    return [
        replace(walk, request=part.narrowed(walk.request), part=part)
        for part in partition(known, products, max_parts, threads)
    ]


def _is_counted(parts: Sequence[Walk], client: BlockingClient, log: Log) -> bool:
    """True if the service can count a part's products.

    The part that lists the most brands is tested. The count is free. If the service rejects the
    count, it would reject the search too. Without a count, missing products could not be detected
    at the end.
    """
    largest = max(parts, key=_brands_named)
    try:
        client.count_products(largest.request, [largest.catalog or ""])
    except OctogenError as error:
        log(f"{error} The catalog is read in a single pass instead.")
        return False
    return True


def _brands_named(walk: Walk) -> int:
    return len(walk.part.brands) + len(walk.part.excluded) if walk.part else 0
