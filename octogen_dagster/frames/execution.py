"""Execution: reads a plan and yields frames in which each product is once, up to a cap."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from octogen_dagster.api.search import SearchFilters
from octogen_dagster.errors import (
    OctogenError,
    OctogenPagingError,
    OctogenSplitCatalogError,
)
from octogen_dagster.frames.consistency import check_unchanged
from octogen_dagster.frames.decode import product_frame
from octogen_dagster.frames.effective_query import generated_facets
from octogen_dagster.frames.reader import MAX_PAGES_PER_BATCH, BulkReader
from octogen_dagster.frames.statistics import ScanStatistics
from octogen_dagster.frames.walk_checks import CatalogProducts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.frames.catalog_read import CatalogRead
    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.read_plan import ReadPlan


class Execution:
    """One execution of a read plan.

    Args:
        plan: The plan to execute.
        service: The service.
        client: Sends the requests of the thread in which it is executed.
        columns: The columns that are needed.
        cap: The largest number of rows; None for all.
        log: Called with a line about each filter that the service derived from the keywords, and
            about products that may be missing.

    Attributes:
        statistics: The statistics so far.
    """

    def __init__(
        self,
        plan: ReadPlan,
        service: CatalogService,
        client: BlockingClient,
        columns: set[str],
        *,
        cap: int | None,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._plan = plan
        self._reads = plan.reads if cap != 0 else []
        self._service = service
        self._client = client
        self._cap = cap
        self._log = log
        self._logged: set[str] = set()
        self._columns = columns
        self._reads_of: dict[str | None, list[CatalogRead]] = {}
        for read in self._reads:
            self._reads_of.setdefault(read.planned.catalog, []).append(read)
        self._reader = self._make_reader()
        self._products = {
            key: CatalogProducts(reads, functools.partial(_count, key, client), log)
            for key, reads in self._reads_of.items()
        }
        self.statistics = ScanStatistics(
            search=plan.search,
            started_at=plan.started_at,
            expected_rows=plan.expected_rows,
            rows_per_product=plan.rows_per_product,
            product_counts=plan.product_counts,
            catalogs=[key for key in self._reads_of if key],
            walks=len(self._reads),
        )

    def frames(self, report: Callable[[], None]) -> Iterator[pl.DataFrame]:
        """Yield the rows, in the order in which their pages come.

        Args:
            report: Called about every second, and before each frame; `add_up` brings the statistics
                up to date.

        Raises:
            OctogenError: The read failed or is not complete.
        """
        with self._reader as reader:
            try:
                for batch in reader:
                    frame = self._checked_frame(*batch) if batch else None
                    report()
                    if frame is None:
                        continue
                    yield frame
                    if self._is_full:
                        break
                else:
                    check_unchanged(self._reads, self._service.catalogs, self._client)
            finally:
                self.add_up()
        if self._plan.saved_read:
            reader.join()
        self.statistics.complete = True
        yield self._decoded([], None)

    @property
    def _is_full(self) -> bool:
        return self._cap is not None and self.statistics.rows >= self._cap

    @property
    def _unfinished(self) -> int:
        """The number of catalogs whose last page did not come yet."""
        return sum(not products.finished for products in self._products.values())

    def _make_reader(self) -> BulkReader:
        if self._cap is None:
            concurrency = self._service.concurrency
            return BulkReader(
                self._service,
                self._reads,
                concurrency,
                MAX_PAGES_PER_BATCH,
                stop=self._client.stop,
                check=self._client.check,
            )
        # Catalogs are read one after another, and no page is requested that may not be needed.
        pages = min(MAX_PAGES_PER_BATCH, -(-self._cap // self._plan.search.page_size))
        return BulkReader(
            self._service,
            self._reads,
            1,
            pages,
            stop=self._client.stop,
            check=self._client.check,
            read_ahead=False,
        )

    def _checked_frame(self, read: CatalogRead, pages: Sequence[ProductPage]) -> pl.DataFrame:
        try:
            return self._frame(read, pages)
        except OctogenPagingError:
            read.failed = True
            raise

    def _frame(self, read: CatalogRead, pages: Sequence[ProductPage]) -> pl.DataFrame:
        self._note_effective_query(read)
        frame = self._decoded(pages, read.planned.catalog)
        frame = self._without_repeats(read, frame, pages)
        left = 0 if self._cap is None else self.statistics.rows + len(frame) - self._cap
        if left > 0:
            frame = frame.head(len(frame) - left)
        self.statistics.add(frame, pages)
        self.statistics.rows_by_catalog[read.planned.catalog] += len(frame)
        if self._is_full:
            self.statistics.truncated = left > 0 or self._unfinished > 0
        return frame

    def _decoded(self, pages: Sequence[ProductPage], catalog: str | None) -> pl.DataFrame:
        return product_frame(pages, self._columns, catalog, self._plan.started_at)

    def _without_repeats(
        self, read: CatalogRead, frame: pl.DataFrame, pages: Sequence[ProductPage]
    ) -> pl.DataFrame:
        products = self._products[read.planned.catalog]
        try:
            new, new_to_walk = products.add(read, frame.get_column("uuid"))
            if not pages[-1].next_cursor:
                products.finish(read)
                if products.is_doubtful:  # later reads must not expect as few
                    self.statistics.product_counts.pop(read.planned.catalog or "", None)
        except OctogenSplitCatalogError:
            check_unchanged(
                self._reads_of[read.planned.catalog], self._service.catalogs, self._client
            )
            raise
        _note_repeats(read, pages, new_to_walk)
        return frame if new.all() else frame.filter(new)

    def _note_effective_query(self, read: CatalogRead) -> None:
        catalog, query = read.planned.catalog or "", read.effective_query
        if query is None or catalog in self.statistics.effective_queries:
            return
        self.statistics.effective_queries[catalog] = query
        for facet in generated_facets(query):
            line = f"{self._plan.search.q!r} is understood as {facet}."
            if line not in self._logged:  # once, although most catalogs say the same
                self._logged.add(line)
                self._log(line)

    def add_up(self) -> None:
        """Bring the statistics up to date."""
        statistics = self.statistics
        statistics.repeats = sum(read.tracker.repeats for read in self._reads)
        statistics.repeats += sum(products.twice for products in self._products.values())
        statistics.resumed_pages = sum(read.resumed_pages for read in self._reads)
        received = sum(read.products for read in self._reads) - statistics.repeats
        statistics.received_rows = received
        statistics.received_pages = sum(read.tracker.pages for read in self._reads)
        if statistics.expected_rows is not None and self._cap is None:
            rows, statistics.requests_left = self._left()
            statistics.likely_rows = received + rows
        statistics.update(self._reader.sent, self._service.spending)

    def _left(self) -> tuple[int, int]:
        """The rows and pages that are likely still to be received, saved pages left out."""
        rows = pages = 0
        for reads in self._reads_of.values():
            if all(read.ended for read in reads):
                continue
            expected = reads[0].planned.expected_rows or 0
            left = max(0, expected - sum(read.products for read in reads))
            saved = sum(read.saved_pages - read.resumed_pages for read in reads)
            rows += left
            pages += max(0, -(-left // self._plan.search.page_size) - saved)
        return rows, pages


def _note_repeats(read: CatalogRead, pages: Sequence[ProductPage], new: pl.Series) -> None:
    begin = 0
    for page in pages:
        products = len(page.uuids)
        fresh = int(new.slice(begin, products).sum())
        read.tracker.deduplicated(new=fresh, repeats=products - fresh)
        begin += products


def _count(catalog: str | None, client: BlockingClient) -> int | None:
    """Return the service's own count of a catalog, a lower bound; None if it has none."""
    catalogs = [catalog] if catalog else []
    try:
        count = client.count_products(SearchFilters(), catalogs)
    except OctogenError:
        return None
    return count or None
