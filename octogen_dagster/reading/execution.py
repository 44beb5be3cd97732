"""Executes a read plan: reads the pages of each catalog and yields frames without duplicates.

A read either returns all products or fails. The order of pages is checked as they arrive
(`api.paging`). At the end, the read fails if a catalog was indexed again in the meantime, or if
products are missing in a catalog that was read in several parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import polars as pl

from octogen_dagster.api.paging import INDEXED_AGAIN
from octogen_dagster.api.search import SearchFilters
from octogen_dagster.errors import OctogenError, OctogenPagingError, OctogenSplitCatalogError
from octogen_dagster.frames.effective_query import generated_facets
from octogen_dagster.printable import printable
from octogen_dagster.reading.decode import ProductPage, product_frame, read_page
from octogen_dagster.reading.statistics import ScanStatistics
from octogen_dagster.reading.walk import WalkRead
from octogen_dagster.reading.workers import Workers

if TYPE_CHECKING:
    from datetime import datetime

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.reading.plan import ReadPlan

_MAX_BATCHES_AHEAD = 1
"""The number of batches to read ahead, in addition to one batch per thread.

A query that ends early discards these batches.
"""
_FEW = 10
"""A read fails only if more products than this occur in two parts of a catalog.

A product can be read twice if its brand changes during the read.
"""
_MAX_SHARE_TWICE = 0.01
_MIN_SHARE_OF_COUNT = 0.98
_MAX_RECENT = 1 << 17
"""A set is merged into a sorted series only if it contains more hashes than this.

A set is ten times faster than a series but takes 70 bytes per product.
"""


class IndexedAgainError(OctogenPagingError):
    """A catalog was indexed again during the read. Other catalogs' saved pages can be reused."""


class SeenProducts:
    """The products seen so far, as 64-bit hashes: about 10 bytes per product in large catalogs.

    Recent hashes are kept in a set. When the set exceeds `max_recent` and an eighth of the sorted
    array, it is merged into that array. Among a million products, the probability of a collision is
    3e-8.
    """

    def __init__(self, max_recent: int = _MAX_RECENT) -> None:
        self._max_recent = max_recent
        self._recent: set[int] = set()
        self._sorted = pl.Series(dtype=pl.Int64)

    def add(self, uuids: Sequence[str]) -> pl.Series:
        """Add products. Return a Boolean mask that is True for each product not seen before."""
        hashes = [*map(hash, uuids)]
        distinct = set(hashes)
        # Most pages have only new products, and two set operations are faster than a loop.
        if len(distinct) == len(hashes) and self._recent.isdisjoint(distinct):
            self._recent |= distinct
            new = pl.repeat(value=True, n=len(hashes), dtype=pl.Boolean, eager=True)
        else:
            is_new = []
            for each in hashes:
                is_new.append(each not in self._recent)
                self._recent.add(each)
            new = pl.Series(is_new, dtype=pl.Boolean)
        if len(self._sorted):
            sought = pl.Series(hashes, dtype=pl.Int64)
            at = self._sorted.search_sorted(sought).clip(upper_bound=len(self._sorted) - 1)
            new &= self._sorted.gather(at) != sought
        if len(self._recent) > max(self._max_recent, len(self._sorted) // 8):
            recent = pl.Series(list(self._recent), dtype=pl.Int64)
            self._sorted = pl.concat([self._sorted, recent]).sort()
            self._recent = set()
        return new


class CatalogProducts:
    """Removes duplicate products from the pages of one catalog, or of catalogs read together.

    A large catalog is read in several passes, each over one part of the catalog. If the service
    applies the facets correctly, each product is in exactly one part. If the service ignores a
    facet, products occur in several parts. If it omits products, the parts contain fewer products
    than the service counts.
    """

    def __init__(self, reads: Sequence[WalkRead], log: Callable[[str], None]) -> None:
        self.reads = reads
        self.twice = 0  # products that were already in another part
        self.is_doubtful = False  # products might be missing, but no earlier read shows how many
        self._walk = reads[0].walk
        self._log = log
        self.unfinished = len(reads)  # passes whose last page has not arrived
        self._all = SeenProducts()
        recent = _MAX_RECENT // len(reads)
        self._by_walk = {read: SeenProducts(recent) for read in reads} if self._walk.part else {}
        self._count = 0

    def add(self, read: WalkRead, uuids: Sequence[str]) -> tuple[pl.Series, pl.Series]:
        """Add a batch of products from one pass.

        Return two Boolean masks: products that are new to the catalog, and new to the pass.
        """
        new = self._all.add(uuids)
        if not self._walk.part:
            return new, new
        new_to_walk = self._by_walk[read].add(uuids)
        self._count += int(new.sum())
        self.twice += int((new_to_walk & ~new).sum())
        if self.twice > max(_FEW, _MAX_SHARE_TWICE * self._count):
            self._fail(f"{self.twice:,} of {self._count:,} products were in more than one part.")
        read.tracker.check_number_of_products(self._count)
        return new, new_to_walk

    def finish(self, read: WalkRead, client: BlockingClient) -> None:
        """Record that a pass is finished. After the last pass, check for missing products."""
        self._by_walk.pop(read, None)
        self.unfinished -= 1
        if not self.unfinished:
            self._all = SeenProducts()  # frees memory
            if self._walk.part:
                self._check_count(client)

    def _check_count(self, client: BlockingClient) -> None:
        """Check that the parts contain almost all expected products.

        The source's count can be days old. Before the first read, the number of rows per counted
        product is unknown. If the source has no count, the latest snapshot provides the expected
        number of rows, and shows whether the service counts rows.
        """
        by_source = self._walk.expected_rows
        in_snapshot = sum(read.walk.part.products for read in self.reads if read.walk.part)
        expected = in_snapshot if by_source is None else by_source
        if self._count >= _MIN_SHARE_OF_COUNT * expected:
            return
        counted = count_products(client, SearchFilters(), self._walk.catalog)
        if counted is not None and self._count < _MIN_SHARE_OF_COUNT * counted:
            is_in_rows = self._walk.rows_per_product is not None
            if by_source is None:
                is_in_rows = in_snapshot >= _MIN_SHARE_OF_COUNT * counted
            if not is_in_rows:
                self.is_doubtful = True
                self._log(
                    f"Catalog {self._walk.catalog!r}: the read returned only {self._count:,} "
                    f"products, but {expected:,} were expected. The search might not return every "
                    "product that the service counts. For an exact count, set "
                    "max_extra_pages_percent=0 for one read. The catalog is then read in a single "
                    "pass, and later reads expect as many products as that pass returned."
                )
                return
            self._fail(
                f"the parts contain only {self._count:,} products, but the service counts at "
                f"least {counted:,}."
            )
        live = "is unavailable" if counted is None else f"is at least {counted:,}"
        self._log(
            f"Catalog {self._walk.catalog!r}: the read returned {self._count:,} products, but "
            f"{expected:,} were expected. The expected number might be outdated. The service's "
            f"current count {live}."
        )

    def _fail(self, problem: str) -> NoReturn:
        assert self._walk.part
        raise OctogenSplitCatalogError(
            f"Catalog {self._walk.catalog!r}, split by brand into {self._walk.part.parts} parts: "
            f"{problem} The service did not include or exclude brands (facet brand_name) exactly "
            "as requested. Nothing was published. Retry the read. If the error persists, report it "
            "to Octogen, and set max_extra_pages_percent=0 in OctogenResource or scan_products to "
            "read each catalog in a single pass."
        )


class PlanRead:
    """Executes a read plan and stops after `cap` rows. If `cap` is None, all rows are read."""

    def __init__(
        self,
        plan: ReadPlan,
        service: CatalogService,
        client: BlockingClient,
        *,
        columns: set[str],
        cap: int | None,
        log: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._reads = [WalkRead(walk) for walk in plan.walks] if cap != 0 else []
        self._service = service
        self._client = client
        self._columns = columns
        self._cap = cap
        self._log = log
        self._logged: set[str] = set()
        by_catalog: dict[str | None, list[WalkRead]] = {}
        for read in self._reads:
            by_catalog.setdefault(read.walk.catalog, []).append(read)
        self._products = {key: CatalogProducts(reads, log) for key, reads in by_catalog.items()}
        self._workers: Workers[WalkRead, tuple[WalkRead, list[ProductPage]]] | None = None
        self.statistics = ScanStatistics(
            search=plan.search,
            started_at=plan.started_at,
            expected_rows=plan.expected_rows,
            rows_per_product=plan.rows_per_product,
            product_counts=plan.product_counts,
            catalogs=list(plan.states) if self._reads else [],
            walks=len(self._reads),
        )

    def frames(self, report: Callable[[], None]) -> Iterator[pl.DataFrame]:
        """Yield the rows in the order in which their pages arrive."""
        try:
            yield from self._capped(report) if self._cap is not None else self._all(report)
        finally:
            self.add_up()
        self.statistics.complete = True
        yield product_frame([], self._columns, None, self._plan.started_at)

    def _capped(self, report: Callable[[], None]) -> Iterator[pl.DataFrame]:
        """Read page by page in this thread, so that no page is requested unnecessarily."""
        for read in self._reads:
            with read.walk.saved or contextlib.nullcontext():
                for page in read.pages(self._client):
                    frame = self._checked_frame(read, [page])
                    report()
                    yield frame
                    if self.statistics.rows >= (self._cap or 0):
                        return
        self._check_unchanged(self._reads)

    def _all(self, report: Callable[[], None]) -> Iterator[pl.DataFrame]:
        with Workers(
            self._service,
            self._reads,
            lambda client, read: read.batches(client),
            threads=min(self._service.concurrency, len(self._reads)),
            ahead=_MAX_BATCHES_AHEAD,
            check=self._client.check,
            name="octogen-read",
        ) as workers:
            self._workers = workers
            for batch in workers:
                frame = self._checked_frame(*batch) if batch else None
                report()
                if frame is not None:
                    yield frame
            self._check_unchanged(self._reads)

    def _check_unchanged(self, reads: Sequence[WalkRead]) -> None:
        """Check that no catalog was indexed again while it was being read.

        Each catalog's index time is compared with the index time before the read. If the service
        does not report index times, page 1 is requested again, but only if a later page looked like
        page 1.
        """
        service, client = self._service, self._client
        # A single page cannot mix two states.
        live = [
            read
            for read in reads
            if read.tracker.pages > read.resumed_pages
            and (read.tracker.pages > 1 or read.walk.part)
        ]
        states = [each for read in live for each in read.walk.catalogs if each.last_indexed_at]
        if states:
            # A list fetched before the last page could miss an index run.
            listed = service.listing.fetched_since(service.clock(), client).catalogs
            indexed_times = {state.catalog: state.last_indexed_at for state in listed}
            for state in states:
                now = indexed_times.get(state.catalog)
                if state.last_indexed_at != now:
                    raise IndexedAgainError(
                        f"Catalog {state.catalog!r} was indexed again while it was being read "
                        f"(lastIndexedAt: {_text(state.last_indexed_at)}, now {_text(now)}), "
                        f"{INDEXED_AGAIN}"
                    )
        for read in reads:
            # Without index times, saved pages can also come from two states.
            while read.walk.last_indexed_at is None and read.tracker.may_have_restarted:
                page = client.page(read.walk.request, read.walk.subject, 1, read_page)
                self.statistics.first_pages += 1
                try:
                    read.tracker.check_first_page(page)
                except OctogenPagingError:
                    read.failed = True
                    raise

    def _checked_frame(self, read: WalkRead, pages: Sequence[ProductPage]) -> pl.DataFrame:
        self._record_effective_query(read)
        frame = product_frame(pages, self._columns, read.walk.catalog, self._plan.started_at)
        try:
            frame = self._without_repeats(read, frame, pages)
        except OctogenPagingError:
            read.failed = True
            raise
        left = 0 if self._cap is None else self.statistics.rows + len(frame) - self._cap
        if left > 0:
            frame = frame.head(len(frame) - left)
        self.statistics.add(frame, pages)
        self.statistics.rows_by_catalog[read.walk.catalog] += len(frame)
        if self._cap is not None and self.statistics.rows >= self._cap:
            is_unfinished = any(products.unfinished for products in self._products.values())
            self.statistics.truncated = left > 0 or is_unfinished
        return frame

    def _without_repeats(
        self, read: WalkRead, frame: pl.DataFrame, pages: Sequence[ProductPage]
    ) -> pl.DataFrame:
        products = self._products[read.walk.catalog]
        try:
            new, new_to_walk = products.add(read, [uuid for page in pages for uuid in page.uuids])
            if not pages[-1].next_cursor:
                products.finish(read, self._client)
                if products.is_doubtful:  # or later reads would expect this low number
                    self.statistics.product_counts.pop(read.walk.catalog or "", None)
        except OctogenSplitCatalogError:
            # If the catalog was indexed again meanwhile, raise that error instead.
            self._check_unchanged(products.reads)
            raise
        begin = 0
        for page in pages:
            fresh = int(new_to_walk.slice(begin, len(page.uuids)).sum())
            read.tracker.deduplicated(new=fresh, repeats=len(page.uuids) - fresh)
            begin += len(page.uuids)
        return frame if new.all() else frame.filter(new)

    def _record_effective_query(self, read: WalkRead) -> None:
        catalog, query = read.walk.catalog or "", read.effective_query
        if query is None or catalog in self.statistics.effective_queries:
            return
        self.statistics.effective_queries[catalog] = query
        for facet in generated_facets(query):
            line = f"The service interprets {self._plan.search.q!r} as {printable(facet)}."
            if line not in self._logged:  # the same for most catalogs
                self._logged.add(line)
                self._log(line)

    @property
    def failed(self) -> list[WalkRead]:
        """The passes that failed because a page was unreadable or contradicted other pages."""
        return [read for read in self._reads if read.failed]

    def add_up(self) -> None:
        statistics, reads = self.statistics, self._reads
        statistics.repeats = sum(read.tracker.repeats for read in reads)
        statistics.repeats += sum(products.twice for products in self._products.values())
        statistics.resumed_pages = sum(read.resumed_pages for read in reads)
        received = sum(read.products for read in reads) - statistics.repeats
        statistics.received_rows = received
        statistics.received_pages = sum(read.tracker.pages for read in reads)
        if statistics.expected_rows is not None and self._cap is None:
            rows, statistics.requests_left = self._left()
            statistics.likely_rows = received + rows
        sent = self._workers.sent if self._workers else self._client.statistics
        statistics.update(sent, self._service.spending)

    def _left(self) -> tuple[int, int]:
        """Estimate how many rows remain, and how many pages must still be requested."""
        rows = pages = 0
        for products in self._products.values():
            reads = products.reads
            if all(read.ended for read in reads):
                continue
            expected = reads[0].walk.expected_rows or 0
            left = max(0, expected - sum(read.products for read in reads))
            saved = sum(read.saved_pages - read.resumed_pages for read in reads)
            rows += left
            pages += max(0, -(-left // self._plan.search.page_size) - saved)
        return rows, pages


def count_products(
    client: BlockingClient, filters: SearchFilters, catalog: str | None
) -> int | None:
    """Return the product count that the service reports for a catalog; None if unknown.

    The count is a lower bound.
    """
    try:
        return client.count_products(filters, [catalog] if catalog else []) or None
    except OctogenError:
        return None


def _text(indexed_at: datetime | None) -> str:
    return indexed_at.isoformat() if indexed_at else "unknown"
