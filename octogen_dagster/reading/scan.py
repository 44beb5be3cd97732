"""ProductScan: a search that is read when its LazyFrame is executed.

    ProductScan.reading → Polars executes the frame → _frames → _plan (pushdown, plan)
    → PlanRead.frames, whose workers read the walks → frames for Polars

Without a target, as by `scan_products`, the frame is executed by whoever collects it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import (
    MAX_EXTRA_PAGES_PERCENT,
    CatalogService,
    CatalogSource,
    GrantedCatalogs,
)
from octogen_dagster.api.credentials import ApiKey, configured_base_url
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import ProductSearch, checked_search
from octogen_dagster.api.service import DEFAULT_TIMEOUT
from octogen_dagster.api.spending import Spending
from octogen_dagster.background import throttled
from octogen_dagster.errors import (
    OctogenEmptyCatalogError,
    OctogenError,
    OctogenNotFoundError,
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenResponseError,
)
from octogen_dagster.frames.columns import PRODUCT_SCHEMA, SCHEMA_VERSION
from octogen_dagster.frames.effective_query import EFFECTIVE_QUERY
from octogen_dagster.frames.source import (
    CATALOGS,
    MIN_ROWS_PERCENT,
    ROWS,
    ROWS_PER_PRODUCT,
    Limits,
    Outcome,
    Reading,
    SnapshotTarget,
    TimeWindow,
    is_within,
    utc_now,
)
from octogen_dagster.io_source import Query, io_source, raise_interrupt
from octogen_dagster.reading.execution import IndexedAgainError, PlanRead
from octogen_dagster.reading.pages import PageStore
from octogen_dagster.reading.plan import (
    ReadPlan,
    SnapshotBrands,
    in_reading_order,
    list_for,
    plan_walks,
    plan_with_store,
    reads_list,
    split_large,
)
from octogen_dagster.reading.progress import progress_bar
from octogen_dagster.reading.pushdown import Pushdown
from octogen_dagster.reading.statistics import ProductMetrics, ScanStatistics
from octogen_dagster.reading.walk import WalkRead
from octogen_dagster.validation import require_percent

if TYPE_CHECKING:
    from datetime import datetime

    from octogen_dagster.reading.plan import ListCatalogs


_LOGGER = logging.getLogger(__name__)
_NOWHERE = SnapshotTarget(_LOGGER.info, _LOGGER.warning)
_MANY_MORE = 1.5
"""The rows for each counted product that no growth of a catalog meanwhile explains."""
_BAR_SECONDS = 0.5
"""The time between two updates of the progress bar."""
_SHRINKING_CAUSES = (
    "the API key may no longer read a catalog, its key was renamed or mistyped, fewer catalogs are "
    "read, or the search was understood differently than before"
)


@dataclass
class _LastExecution:
    statistics: ScanStatistics


class ProductScan:
    """A search as a lazy frame, with the statistics of its execution.

    Args:
        search: The search.
        service: The settings of the service.
        report: Called with the statistics about every ten seconds, and at the end.
        list_catalogs: Lists the catalogs of the source, or returns None for a service that has no
            list. By default the source is asked, if its list is needed.
        requests_before: The requests that were sent for it before, which its statistics count.
        window: The time window of the snapshot. The service knows only the present, so a past
            or future window is refused.
        min_rows_percent: The smallest snapshot of whole catalogs to publish, in percent of the
            rows of the one that it replaces; 0 publishes any, also an empty one. Other searches may
            find as few products as they do.
        progress: True if a bar is shown in a terminal or a notebook while the frame is executed.
        explain: Returns the error to raise, when a snapshot is stored, in place of one that says
            that a catalog is empty or not there; None lets that one pass.
        clock: Returns the present time, in UTC.

    Attributes:
        search: The search.
        report_interval_seconds: The time between two reports.
    """

    report_interval_seconds = 10.0

    def __init__(
        self,
        search: ProductSearch,
        service: CatalogService,
        report: Callable[[ScanStatistics], None] | None = None,
        *,
        list_catalogs: ListCatalogs | None = None,
        requests_before: int = 0,
        window: TimeWindow | None = None,
        min_rows_percent: float = MIN_ROWS_PERCENT,
        progress: bool = False,
        explain: Callable[[OctogenError], Exception | None] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.search = search
        require_percent("min_rows_percent", min_rows_percent)
        self.min_rows_percent = min_rows_percent if search.reads_whole_catalogs else 0.0
        self.service = service
        self._last = _LastExecution(ScanStatistics(search=search))
        self._report = report
        self._progress = progress
        self._list_catalogs = list_catalogs
        self._requests_before = requests_before
        self._window = window
        self._explain = explain
        self._clock = clock

    def __reduce__(self) -> Any:
        raise TypeError(
            "A ProductScan was pickled, so it would not be read: only a ParquetSnapshotIOManager "
            "reads what OctogenResource.scan(...) returns. Give the asset one, such as by "
            "io_manager_key, or return octogen.scan(...).frame.collect()."
        )

    @functools.cached_property
    def frame(self) -> pl.LazyFrame:
        """The products, as a lazy frame with the schema `PRODUCT_SCHEMA`."""
        # Polars holds what a frame calls where Python's collector does not see it: a scan that its
        # own frame calls would never be freed, nor its connections.
        reader = object.__new__(_FrameReader)
        vars(reader).update(vars(self))
        return io_source(PRODUCT_SCHEMA, reader._frames)

    @property
    def statistics(self) -> ScanStatistics:
        """The statistics of the last execution of the frame."""
        return self._last.statistics

    @property
    def spending(self) -> Spending:
        """The costs and budget of all executions."""
        return self.service.spending

    @contextlib.contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Let the block store the products in a target, with saved pages beside it."""
        metrics = ProductMetrics()
        pages = None
        if target.store:
            pages = PageStore(
                target.store,
                target.saved_pages,
                target.log,
                target.warn,
                scope=target.key,
                resume_within=target.resume_within,
                clock=self._clock,
            )

        def frames(query: Query, stop: threading.Event) -> Iterator[pl.DataFrame]:
            for frame in self._frames(query, stop, target, pages):
                metrics.add(frame)
                yield frame

        limits = Limits(
            min_rows_percent=self.min_rows_percent,
            shrinking_causes=_SHRINKING_CAUSES,
        )
        try:
            yield Reading(
                io_source(PRODUCT_SCHEMA, frames, stop),
                lambda: self._outcome(metrics),
                limits,
                pages.clear if pages else lambda: None,
            )
        except (OctogenEmptyCatalogError, OctogenNotFoundError) as error:
            explained = self._explain(error) if self._explain else None
            if explained is None:
                raise
            raise explained from error

    def _outcome(self, metrics: ProductMetrics) -> Outcome:
        statistics = self.statistics
        search, query = statistics.search.as_json(), statistics.effective_query
        understood = {EFFECTIVE_QUERY: json.dumps(query, sort_keys=True)} if query else {}
        catalogs = sorted(statistics.catalogs)
        # A search without catalogs of its own or of a source is read as one.
        known = {CATALOGS: json.dumps(catalogs)} if catalogs or not statistics.pages else {}
        learned = dict[str, str]()
        if statistics.search.reads_whole_catalogs and not statistics.truncated:
            counts, rows = statistics.product_counts, statistics.rows_by_catalog
            ratios = {
                key: rows[key] / count for key, count in counts.items() if count and rows[key]
            }
            learned = {ROWS_PER_PRODUCT: json.dumps(ratios)} if ratios else {}
        file_metadata = {
            **known,
            **learned,
            "octogen.fetched_at": statistics.started_at.isoformat(),
            ROWS: str(statistics.rows),
            "octogen.schema_version": str(SCHEMA_VERSION),
            "octogen.search": json.dumps(search, sort_keys=True),
            **understood,
        }
        problem = None if statistics.complete else "it did not come to its end"
        return Outcome(statistics.rows, problem, file_metadata, statistics.metrics, metrics.metrics)

    def _frames(
        self,
        query: Query,
        stop: threading.Event,
        target: SnapshotTarget = _NOWHERE,
        pages: PageStore | None = None,
    ) -> Iterator[pl.DataFrame]:
        now = self._clock()
        if self._window and not is_within(self._window, now):
            raise OctogenPastPartitionError(*self._window, now)
        service = self.service.for_execution(target.warn)
        with BlockingClient(service, stop, raise_interrupt) as client:
            plan = self._plan(query, service, client, target, pages)
            caps = [cap for cap in (query.n_rows, plan.search.max_products) if cap is not None]
            if not caps:
                if line := plan.estimate(service):
                    target.log(line)
                if line := plan.small_page_warning(service):
                    target.warn(line)
            cap = min(caps, default=None)
            read = PlanRead(plan, service, client, columns=query.columns, cap=cap, log=target.log)
            try:
                yield from self._told(read)
            except (OctogenPagingError, OctogenResponseError) as error:
                if pages:
                    _discard_bad(pages, plan, read.failed, error)
                raise
        self._warn_of_more_rows(plan, target.warn)

    def _told(self, read: PlanRead) -> Iterator[pl.DataFrame]:
        """Yield the rows of a read, and tell how far it is."""
        statistics = self._last.statistics = read.statistics
        statistics.requests_before = self._requests_before
        with progress_bar() if self._progress else contextlib.nullcontext() as bar:
            tell = bar or self._report or (lambda _: None)

            def report() -> None:
                read.add_up()
                tell(statistics)

            seconds = _BAR_SECONDS if bar else self.report_interval_seconds
            try:
                yield from read.frames(throttled(report, seconds))
            finally:
                if bar or statistics.complete:
                    tell(statistics)

    def _warn_of_more_rows(self, plan: ReadPlan, warn: Callable[[str], None]) -> None:
        """Warn of each catalog that cost far more than its source's count let expect."""
        for walk in plan.whole_catalogs:
            if walk.catalog is None:  # the sources count its catalogs without its filters
                continue
            rows, count = self.statistics.rows_by_catalog[walk.catalog], walk.product_count
            if walk.rows_per_product is None and count and rows > _MANY_MORE * count:
                warn(
                    f"Catalog {walk.catalog!r}: {rows:,} products came, and its source counts "
                    f"{count:,}. It may count groups of what a search lists, so a read costs more "
                    "than its count lets expect. The next read of a snapshot expects as many."
                )

    def _plan(
        self,
        query: Query,
        service: CatalogService,
        client: BlockingClient,
        target: SnapshotTarget,
        pages: PageStore | None,
    ) -> ReadPlan:
        # Polars counts n_rows before the predicate, so a limited search is not narrowed.
        search, pushdown = self.search, Pushdown()
        is_capped = query.n_rows is not None or self.search.max_products is not None
        if query.predicate is not None and not is_capped:
            pushdown = Pushdown.of(query.predicate)
            narrowed = _narrowed(search, pushdown)
            if narrowed is None:
                return ReadPlan(search, [], self._clock())
            search = narrowed
        is_whole = query.n_rows is None and pushdown == Pushdown()
        is_granted = isinstance(service.catalog_source, GrantedCatalogs)
        needs_times = is_whole and (pages is not None or search.max_products is None)
        listed = None
        if self._list_catalogs is not None:
            listed = self._list_catalogs()
        elif needs_times or reads_list(search, source_is_granted=is_granted):
            is_capped = query.n_rows is not None
            listed = list_for(search, service, client, target.warn, capped=is_capped)
        walks = plan_walks(
            search,
            client,
            listed,
            pushdown,
            source_is_granted=is_granted,
            # Not those of the narrowed search: what a query filters must not change the order.
            merges=self.search.has_filters,
        )
        if not is_whole:
            return ReadPlan(search, walks, self._clock())
        learned = json.loads(target.latest_metadata().get(ROWS_PER_PRODUCT, "{}"))
        walks = [replace(walk, rows_per_product=learned.get(walk.catalog)) for walk in walks]
        brands = SnapshotBrands(target.latest, target.warn)
        catalogs = split_large(walks, search, service, client, brands=brands, log=target.log)
        if pages is None:
            return ReadPlan(search, in_reading_order(catalogs), self._clock())
        return plan_with_store(search, catalogs, pages, client, target.log)


class _FrameReader(ProductScan):
    """The scan that a frame calls. A pickle of the frame has the search and the service."""

    def __reduce__(self) -> Any:
        return _FrameReader, (self.search, self.service)


def _discard_bad(
    pages: PageStore, plan: ReadPlan, failed: Sequence[WalkRead], error: Exception
) -> None:
    """Remove the saved pages of the catalogs that failed, so that the next read begins them anew.

    A response that cannot be read says nothing about the pages before it, but a saved page that
    cannot be read would end each later read. Pages from before a catalog was indexed again are not
    found by the next read.
    """
    if isinstance(error, OctogenPagingError):
        is_bad = not isinstance(error, IndexedAgainError)
    else:
        is_bad = any(read.resumed_pages < read.saved_pages for read in failed)
    if is_bad:
        catalogs = {read.walk.catalog for read in failed}
        bad = [walk.saved for walk in plan.walks if walk.catalog in catalogs]
        pages.discard([saved.key for saved in bad if saved])


def scan_products(
    search: ProductSearch,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    concurrency: int = 8,
    retry: RetryPolicy | None = None,
    reserved_percent: float = 20,
    catalog_source: CatalogSource | None = None,
    budget_usd: float | None = None,
    max_extra_pages_percent: float = MAX_EXTRA_PAGES_PERCENT,
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
        api_key: The API key; by default `STOREROUTER_API_KEY`, then
            `OCTOGEN_PLATFORM_API_KEY`, then `OCTO_API_KEY`.
        base_url: The base URL of the API: https, or http on this machine. By default the
            environment variable `OCTOGEN_BASE_URL`, then that at `OCTOGEN_HOST`, then Octogen's
            own.
        timeout: Seconds for one attempt of a request, from connecting to the last byte of the
            response.
        concurrency: The number of catalogs, or of parts of a large one, that are read at the same
            time.
        retry: How requests are retried.
        reserved_percent: Percent of the organisation's rate limit that are left to other users.
        catalog_source: Where the catalogs come from that a search without `catalogs` reads; by
            default `GrantedCatalogs`.
        budget_usd: Dollars that all executions of the frame may spend; None for no limit.
        max_extra_pages_percent: The most pages that reading a catalog in several walks may add, in
            percent of its pages; 0 reads each catalog in one walk.
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
    search = checked_search(search)
    try:
        key = ApiKey(api_key)
    finally:
        del api_key  # no traceback that shows locals is to show it
    service = CatalogService(
        api_key=key,
        base_url=base_url or configured_base_url(),
        timeout=timeout,
        concurrency=concurrency,
        retry=retry or RetryPolicy(),
        limiter=RateLimiter(reserved_percent),
        catalog_source=catalog_source or GrantedCatalogs(),
        spending=Spending(budget_usd=budget_usd),
        max_extra_pages_percent=max_extra_pages_percent,
    )
    return ProductScan(search, service, progress=progress).frame


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
