"""ProductScan: a search that is read when its LazyFrame is executed."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.api.catalog_sources import CatalogSource, GrantedCatalogs
from octogen_dagster.api.client import DEFAULT_TIMEOUT
from octogen_dagster.api.connection import MAX_EXTRA_PAGES_RATIO, Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.estimate import small_page_warning
from octogen_dagster.api.paging import IndexedAgainError
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.api.spending import Spending
from octogen_dagster.api.urls import configured_base_url
from octogen_dagster.errors import (
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenResponseError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.catalog_read import CatalogRead
from octogen_dagster.frames.columns import PRODUCT_SCHEMA, SCHEMA_VERSION
from octogen_dagster.frames.effective_query import EFFECTIVE_QUERY
from octogen_dagster.frames.execution import Execution
from octogen_dagster.frames.lazy_scan import Interval
from octogen_dagster.frames.pages.resume import plan_with_store
from octogen_dagster.frames.plan import list_for, plan_catalogs
from octogen_dagster.frames.progress_bar import ProgressBar
from octogen_dagster.frames.pushdown import Pushdown
from octogen_dagster.frames.read_plan import ReadPlan
from octogen_dagster.frames.scan_statistics import ScanStatistics, product_figures
from octogen_dagster.frames.service_scan import ServiceScan
from octogen_dagster.frames.snapshot_brands import SnapshotBrands
from octogen_dagster.frames.snapshot_source import (
    CATALOGS,
    MIN_ROWS_RATIO,
    ROWS,
    ROWS_PER_PRODUCT,
)
from octogen_dagster.frames.walks import WalkPlanner, in_reading_order
from octogen_dagster.frames.window import TimeWindow, is_within, utc_now
from octogen_dagster.settings import require_fraction

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from octogen_dagster.frames.pages.store import PageStore
    from octogen_dagster.frames.plan import ListCatalogs, PlannedCatalog
    from octogen_dagster.frames.snapshot_source import SnapshotPlace
    from octogen_dagster.frames.statistics import Figures


_LOGGER = logging.getLogger(__name__)
_MANY_MORE = 1.5
"""By how much more a catalog that grew since it was counted is not explained."""
_BAR_SECONDS = 0.5
"""The time between two updates of the progress bar."""


class ProductScan(ServiceScan):
    """A search as a lazy frame, with the statistics of its execution.

    Args:
        search: The search.
        connection: The settings of the service.
        report: Called with the statistics about every ten seconds, and at the end.
        list_catalogs: Lists the catalogs of the source, or returns None for a service that has no
            list. By default the source is asked, if its list is needed.
        window: The time window of the snapshot. The service knows only the present, so a past
            or future window is refused.
        min_rows_ratio: The smallest snapshot of whole catalogs to publish, as a share of the rows
            of the one that it replaces; 0 publishes any, also an empty one. Other searches may
            find as few products as they do.
        progress: True if a bar is shown in a terminal or a notebook while the frame is executed.
        clock: Returns the present time, in UTC.

    Attributes:
        frame: The products, as a lazy frame with the schema `PRODUCT_SCHEMA`.
        search: The search.
        statistics: The statistics of the last execution of the frame.
    """

    keeps_previous = True
    shrinking_causes = (
        "the API key may no longer read a catalog, its key was renamed or mistyped, fewer catalogs "
        "are read, or the search was understood differently than before"
    )
    statistics: ScanStatistics

    def __init__(
        self,
        search: ProductSearch,
        connection: Connection,
        report: Callable[[ScanStatistics], None] | None = None,
        *,
        list_catalogs: ListCatalogs | None = None,
        window: TimeWindow | None = None,
        min_rows_ratio: float = MIN_ROWS_RATIO,
        progress: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.search = search
        require_fraction("min_rows_ratio", min_rows_ratio)
        self.min_rows_ratio = min_rows_ratio if search.reads_whole_catalogs else 0.0
        self.connection = connection
        self.statistics = ScanStatistics(search=search)
        self._report = report
        self._progress = progress
        self._list_catalogs = list_catalogs
        self._window = window
        self._clock = clock
        self._store: PageStore | None = None
        self._latest: Callable[[], pl.LazyFrame | None] = lambda: None
        self._latest_provenance: Callable[[], Mapping[str, str]] = dict
        self._log: Callable[[str], None] = _LOGGER.info
        self._plan: ReadPlan | None = None
        super().__init__(PRODUCT_SCHEMA)

    def __reduce__(
        self,
    ) -> tuple[Callable[..., ProductScan], tuple[ProductSearch, Connection]]:
        restore = functools.partial(type(self), min_rows_ratio=self.min_rows_ratio)
        return restore, (self.search, self.connection)

    @contextmanager
    def opened(self, place: SnapshotPlace) -> Iterator[None]:
        """Save pages beside the snapshot, and continue from saved ones, while the block runs."""
        self._warn, self._latest = place.warn, place.latest
        self._latest_provenance = place.latest_provenance
        with self.use_page_store(place.page_store(self._clock), place.log):
            yield

    @contextmanager
    def use_page_store(self, store: PageStore, log: Callable[[str], None]) -> Iterator[None]:
        """Save pages in a store, and continue from its saved ones, while the block runs.

        Only an execution of the whole frame, without a predicate that is pushed down or a row
        limit, uses the store.

        Args:
            store: The page store.
            log: Called with a line about each decision on saved pages.
        """
        self._store, self._log = store, log
        try:
            yield
        finally:
            self._store = self._plan = None

    def remove_saved_pages(self) -> None:
        """Remove the saved pages that are not needed after the snapshot was published.

        Raises:
            OctogenSnapshotError: The pages cannot be removed.
        """
        if self._store is None or self._plan is None or self._plan.saved_read is None:
            return
        self._close_savers(self._plan.reads)
        self._store.remove_superseded(self._plan.saved_read, self._plan.superseded)

    def provenance(self) -> dict[str, str]:
        """`SnapshotSource.provenance`."""
        search, query = self.statistics.search.as_json(), self.statistics.effective_query
        understood = {EFFECTIVE_QUERY: json.dumps(query, sort_keys=True)} if query else {}
        catalogs = sorted(self.statistics.catalogs)
        # A search without catalogs of its own or of a source is read as one.
        known = {CATALOGS: json.dumps(catalogs)} if catalogs or not self.statistics.pages else {}
        return {
            **known,
            **self._learned_provenance(),
            "octogen.fetched_at": self.statistics.started_at.isoformat(),
            ROWS: str(self.statistics.rows),
            "octogen.schema_version": str(SCHEMA_VERSION),
            "octogen.search": json.dumps(search, sort_keys=True),
            **understood,
        }

    def _learned_provenance(self) -> dict[str, str]:
        """The rows of each whole catalog for each product that its source counts."""
        if self.statistics.truncated or not self.statistics.search.reads_whole_catalogs:
            return {}
        counts, rows = self.statistics.product_counts, self.statistics.rows_by_catalog
        ratios = {key: rows[key] / count for key, count in counts.items() if count and rows[key]}
        return {ROWS_PER_PRODUCT: json.dumps(ratios)} if ratios else {}

    def figures(self) -> Figures:
        """`SnapshotSource.figures`."""
        return self.statistics.figures()

    def row_figures(self, snapshot: pl.LazyFrame) -> Figures:
        """`SnapshotSource.row_figures`."""
        return product_figures(snapshot)

    def _frames(
        self, columns: set[str], predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        now = self._clock()
        if self._window and not is_within(self._window, now):
            raise OctogenPastPartitionError(*self._window, now)
        # Polars counts n_rows before the predicate, so a limited search is not narrowed.
        pushdown = Pushdown()
        if predicate is not None and n_rows is None and self.search.max_products is None:
            pushdown = Pushdown.of(predicate)
        connection = self._own_connection()
        is_whole = n_rows is None and pushdown == Pushdown()
        if is_whole and self._store:
            plan = self._plan = self._plan_with_store(self._store, connection)
        else:
            stamped = is_whole and self.search.max_products is None
            capped = n_rows is not None
            plan = self._plan_live(pushdown, connection, stamped=stamped, capped=capped)
        caps = [cap for cap in (n_rows, plan.search.max_products) if cap is not None]
        if not caps:
            self._announce(plan, connection)
        execution = Execution(plan, connection, columns, min(caps, default=None), self._log)
        statistics = self.statistics = execution.statistics
        with ProgressBar() if self._progress else contextlib.nullcontext() as bar:
            tell = bar.show if bar else self._report or (lambda _: None)

            def report() -> None:
                execution.add_up()
                tell(statistics)

            seconds = _BAR_SECONDS if bar else self.report_interval_seconds
            try:
                yield from execution.frames(Interval(report, seconds))
            except (OctogenPagingError, OctogenResponseError) as error:
                self._discard_bad_pages(error)
                raise
            finally:
                if bar or statistics.complete:
                    tell(statistics)
        self._warn_of_more_rows(plan)

    def _warn_of_more_rows(self, plan: ReadPlan) -> None:
        """Warn of each catalog that cost far more than its source's count let expect."""
        for planned in {read.planned.catalog: read.planned for read in plan.reads}.values():
            rows = self.statistics.rows_by_catalog[planned.catalog]
            count = planned.product_count
            if planned.rows_per_product is None and count and rows > _MANY_MORE * count:
                self._warn(
                    f"Catalog {planned.catalog!r}: {rows:,} products came, and its source counts "
                    f"{count:,}. It may count groups of what a search lists, so a read costs more "
                    "than its count lets expect. The next read of a snapshot expects as many."
                )

    def _announce(self, plan: ReadPlan, connection: Connection) -> None:
        """Log what a read of all rows takes before it begins."""
        if line := plan.estimate(connection):
            self._log(line)
        page_size = plan.search.page_size
        if line := small_page_warning(page_size, connection):
            self._warn(line)

    def _discard_bad_pages(self, error: Exception) -> None:
        """Remove the saved pages of the catalog that failed, so that the next read begins it anew.

        A response that cannot be read says nothing about the pages before it, but a saved page that
        cannot be read would end each later read. A stamp that moved tells the next read which pages
        are old.
        """
        plan = self._plan
        if self._store is None or plan is None or plan.saved_read is None:
            return
        failed_reads = [read for read in plan.reads if read.failed]
        failed = {read.planned.catalog for read in failed_reads}
        if isinstance(error, OctogenPagingError):
            is_bad = not isinstance(error, IndexedAgainError)
        else:
            is_bad = any(read.resumed_pages < read.saved_pages for read in failed_reads)
        if is_bad:
            self._close_savers([read for read in plan.reads if read.planned.catalog in failed])
            with contextlib.suppress(OctogenSnapshotError):
                self._store.discard_catalogs({plan.saved_read.name, *plan.continued}, failed)

    @staticmethod
    def _close_savers(reads: Sequence[CatalogRead]) -> None:
        for read in reads:
            if read.saver:
                read.saver.close()

    def _plan_with_store(self, store: PageStore, connection: Connection) -> ReadPlan:
        list_catalogs = self._list_catalogs or functools.partial(
            list_for, self.search, connection, self._warn
        )
        catalogs = plan_catalogs(self.search, connection, list_catalogs, Pushdown(), stamped=True)
        return plan_with_store(
            self.search,
            self._with_rows_per_product(catalogs),
            self._walk_planner(connection),
            store,
            connection,
            log=self._log,
            warn=self._warn,
        )

    def _plan_live(
        self, pushdown: Pushdown, connection: Connection, *, stamped: bool, capped: bool
    ) -> ReadPlan:
        now = self._clock()
        search = _narrowed(self.search, pushdown)
        if search is None:
            return ReadPlan(self.search, [], now)
        catalogs = plan_catalogs(
            search, connection, self._list_catalogs, pushdown, stamped=stamped, capped=capped
        )
        if stamped:  # all rows are read, so their order does not matter
            catalogs = in_reading_order(self._walk_planner(connection).plan(catalogs))
        return ReadPlan(search, [CatalogRead(catalog) for catalog in catalogs], now)

    def _with_rows_per_product(self, catalogs: list[PlannedCatalog]) -> list[PlannedCatalog]:
        """Add to each catalog how many rows came for each product that its source counted."""
        learned = json.loads(self._latest_provenance().get(ROWS_PER_PRODUCT, "{}"))
        return [replace(each, rows_per_product=learned.get(each.catalog)) for each in catalogs]

    def _walk_planner(self, connection: Connection) -> WalkPlanner:
        snapshot = SnapshotBrands(self._latest, self._warn)
        return WalkPlanner(self.search, connection, snapshot, self._log)


def scan_products(
    search: ProductSearch,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    concurrency: int = 8,
    retry: RetryPolicy | None = None,
    reserve: float = 0.2,
    catalogs: CatalogSource | None = None,
    budget_usd: float | None = None,
    max_extra_pages_ratio: float = MAX_EXTRA_PAGES_RATIO,
    progress: bool = False,
) -> pl.LazyFrame:
    """Return a search as a LazyFrame; it is read when the frame is executed.

    Pages stream through the query, so `sink_parquet` needs little memory whatever the size. It
    keeps a row group at a time: `row_group_size=20_000`, as in a snapshot, needs least. Column
    projection, `head`, bounds on `current_price` and equality or `is_in` of `catalog_key` are
    pushed down to the service, which does not change the result.

    Each `collect` reads the search anew and is charged anew. A frame that occurs more than once in
    a query, such as one that is joined with its own aggregate, is read once, but all of it if the
    occurrences need different parts.

    Args:
        search: The search.
        api_key: The API key; by default `OCTOGEN_PLATFORM_API_KEY`, then `OCTO_API_KEY`.
        base_url: The base URL of the API: https, or http on this machine. By default the
            environment variable `OCTOGEN_BASE_URL`, then that at `OCTOGEN_HOST`, then Octogen's
            own.
        timeout: Seconds for one attempt of a request, from connecting to the last byte of the
            response.
        concurrency: The number of catalogs, or of parts of a large one, that are read at the same
            time.
        retry: How requests are retried.
        reserve: Share of the organisation's request budget, 0 to 1, that is left to other users.
        catalogs: Where the catalogs come from that a search without `catalogs` reads; by default
            `GrantedCatalogs`.
        budget_usd: Dollars that all executions of the frame may spend; None for no limit.
        max_extra_pages_ratio: The most pages that reading a catalog in several walks may add, as a
            share of its pages; 0 reads each catalog in one walk.
        progress: True to show a bar with the products, the cost and the time left while the frame
            is executed: on stderr if that is a terminal, or in the cell of a notebook.

    Returns:
        Columns as in `PRODUCT_SCHEMA`; each product once. The order is the service's within
        a catalog that is read in one walk, and any in one that is read in several.

    Raises:
        MissingAPIKeyError: There is no API key. Raised at once.
        ValueError: A setting is out of its range. Raised at once.
        OctogenError: The read failed. Raised when the frame is executed.
    """
    try:
        key = ApiKey(api_key)
    finally:
        del api_key  # no traceback that shows locals is to show it
    connection = Connection(
        api_key=key,
        base_url=base_url or configured_base_url(),
        timeout=timeout,
        concurrency=concurrency,
        retry=retry or RetryPolicy(),
        reserve=reserve,
        catalogs=catalogs or GrantedCatalogs(),
        spending=Spending(budget_usd=budget_usd),
        max_extra_pages_ratio=max_extra_pages_ratio,
    )
    return ProductScan(search, connection, progress=progress).frame


def _narrowed(search: ProductSearch, pushdown: Pushdown) -> ProductSearch | None:
    """Apply the price bounds of a pushdown to a search; None if no price is within them."""
    low = max(pushdown.price_min, search.price_min or 0.0)
    high = min(pushdown.price_max, float("inf") if search.price_max is None else search.price_max)
    if low > high:
        return None
    update: dict[str, float] = {}
    if pushdown.price_min >= 0:
        update["price_min"] = low
    if pushdown.price_max < float("inf"):
        update["price_max"] = high
    return search.model_copy(update=update)
