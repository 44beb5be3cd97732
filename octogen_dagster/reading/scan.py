"""ProductScan: a search as a LazyFrame. Executing the frame reads the products.

    ProductScan.reading → Polars executes the frame → _frames → _plan (pushdown, plan)
    → PlanRead.frames, whose workers read the pages → frames for Polars

Without a target, as in `scan_products`, the caller's `collect` executes the frame.
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
"""The ratio of rows to the source's product count above which a warning is logged.

A catalog's normal growth since the last count stays below this ratio.
"""
_BAR_SECONDS = 0.5
"""The interval between updates of the progress bar."""
_SHRINKING_CAUSES = (
    "the API key might no longer have access to a catalog, a catalog key was renamed or mistyped, "
    "fewer catalogs are read, or the service interprets the search differently"
)


@dataclass
class _LastExecution:
    statistics: ScanStatistics


class ProductScan:
    """A search whose products are read through a lazy frame, with statistics for each execution.

    Args:
        search: The search.
        service: The service settings.
        report: A function that is called with the statistics about every ten seconds, and at the
            end.
        list_catalogs: A function that returns the source's catalogs, or None if the service has no
            list. By default, the source is queried if the read needs the list.
        requests_before: The number of requests already sent for this read. The statistics include
            these requests.
        window: The snapshot's time window. The service returns only current data, so past and
            future windows are rejected.
        min_rows_percent: The minimum size of a whole-catalog snapshot, as a percentage of the
            previous snapshot's row count. Smaller snapshots are not published. If it is 0,
            snapshots of any size are published, even empty ones. Searches with filters have no
            minimum.
        progress: True to show a progress bar in a terminal or a notebook during execution.
        explain: A function that is called with an error about an empty or missing catalog while a
            snapshot is read. It returns the error to raise instead, or None to raise the original
            error.
        clock: A function that returns the current time, in UTC.

    Attributes:
        search: The search.
        report_interval_seconds: Seconds between reports.
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
            "A ProductScan cannot be pickled. Only ParquetSnapshotIOManager can store the result "
            "of OctogenResource.scan(...). Use ParquetSnapshotIOManager as the asset's IO manager, "
            "for example with io_manager_key, or return octogen.scan(...).frame.collect()."
        )

    @functools.cached_property
    def frame(self) -> pl.LazyFrame:
        """The products as a lazy frame with the columns in `PRODUCT_SCHEMA`."""
        # Polars keeps a frame's callback where Python's garbage collector cannot see it. If the
        # callback referred to this scan, the scan and its connections would never be freed.
        reader = object.__new__(_FrameReader)
        vars(reader).update(vars(self))
        return io_source(PRODUCT_SCHEMA, reader._frames)

    @property
    def statistics(self) -> ScanStatistics:
        """Statistics for the frame's latest execution."""
        return self._last.statistics

    @property
    def spending(self) -> Spending:
        """The total cost and the shared budget for all executions."""
        return self.service.spending

    @contextlib.contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Open a read for a snapshot, and save the pages so that a retry can resume the read."""
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
        # If neither the search nor the source lists catalogs, all of them are read in one pass.
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
        problem = None if statistics.complete else "the read did not finish"
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
                yield from self._reported(read)
            except (OctogenPagingError, OctogenResponseError) as error:
                if pages:
                    _discard_bad(pages, plan, read.failed, error)
                raise
        self._warn_of_more_rows(plan, target.warn)

    def _reported(self, read: PlanRead) -> Iterator[pl.DataFrame]:
        """Yield a read's rows and report its progress."""
        statistics = self._last.statistics = read.statistics
        statistics.requests_before = self._requests_before
        with progress_bar() if self._progress else contextlib.nullcontext() as bar:
            show = bar or self._report or (lambda _: None)

            def report() -> None:
                read.add_up()
                show(statistics)

            seconds = _BAR_SECONDS if bar else self.report_interval_seconds
            try:
                yield from read.frames(throttled(report, seconds))
            finally:
                if bar or statistics.complete:
                    show(statistics)

    def _warn_of_more_rows(self, plan: ReadPlan, warn: Callable[[str], None]) -> None:
        """Warn about catalogs that have far more rows than the source's product count."""
        for walk in plan.whole_catalogs:
            if walk.catalog is None:  # the source's counts ignore the search's filters
                continue
            rows, count = self.statistics.rows_by_catalog[walk.catalog], walk.product_count
            if walk.rows_per_product is None and count and rows > _MANY_MORE * count:
                warn(
                    f"Catalog {walk.catalog!r}: the read returned {rows:,} products, but the "
                    f"catalog source reports {count:,}. The source might count all variants of a "
                    "product as one, so the read cost more than estimated. Estimates for later "
                    "snapshots are based on the number of products returned."
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
            # The search without pushdown, because a query's predicate must not change the order.
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
    """Reads the products for a frame. Pickling keeps only the search and the service."""

    def __reduce__(self) -> Any:
        return _FrameReader, (self.search, self.service)


def _discard_bad(
    pages: PageStore, plan: ReadPlan, failed: Sequence[WalkRead], error: Exception
) -> None:
    """Remove the failed catalogs' saved pages if the next read cannot resume from them.

    An unreadable response does not invalidate the pages before it. An unreadable saved page would
    make every later read fail. If a catalog was indexed again, the next read does not find the old
    pages anyway.
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
    """Return a search's products as a LazyFrame. Executing the frame reads the products.

    Pages are streamed through the query, so `sink_parquet` needs little memory, even for large
    catalogs. It buffers one row group at a time. `row_group_size=20_000`, which snapshots use,
    needs the least memory. Column projection, `head`, bounds on `current_price`, and equality or
    `is_in` on `catalog_key` are pushed down to the service. The result is the same as without
    pushdown.

    Each `collect` requests the products again, and the requests are charged again. If a frame
    occurs several times in a query, for example joined with an aggregate of the same frame, it is
    read once. If the occurrences need different columns or rows, the frame is read in full.

    Args:
        search: The search.
        api_key: The API key. Defaults to the environment variable `STOREROUTER_API_KEY`, then
            `OCTOGEN_PLATFORM_API_KEY`, then `OCTO_API_KEY`.
        base_url: The API's base URL: https, or http on this machine. Defaults to the environment
            variable `OCTOGEN_BASE_URL`, then the URL at `OCTOGEN_HOST`, then Octogen's API.
        timeout: The timeout for one attempt of a request, in seconds, from connecting to the last
            byte of the response.
        concurrency: The maximum number of catalogs, or parts of a large catalog, to read at the
            same time.
        retry: The retry policy for requests.
        reserved_percent: The percentage of the organization's rate limit to leave for other users.
        catalog_source: Provides the catalogs for a search without `catalogs`. Defaults to
            `GrantedCatalogs`.
        budget_usd: The budget for all executions of the frame, in US dollars; None for no limit.
        max_extra_pages_percent: The maximum number of extra pages for reading a large catalog in
            parallel parts, as a percentage of its pages. If it is 0, each catalog is read in a
            single pass.
        progress: True to show a progress bar with products, cost and time left during execution:
            on stderr if it is a terminal, or in a notebook cell.

    Returns:
        A LazyFrame with the columns in `PRODUCT_SCHEMA` and without duplicate products. If a
        catalog is read in a single pass, its products are in the service's order. If a catalog is
        read in parallel parts, the order of its products is undefined.

    Raises:
        MissingAPIKeyError: No API key was found. Raised immediately.
        ValueError: A setting is out of range. Raised immediately.
        OctogenError: The read failed. Raised when the frame is executed.
    """
    search = checked_search(search)
    try:
        key = ApiKey(api_key)
    finally:
        del api_key  # keep it out of tracebacks that show locals
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
    """Narrow a search to a pushdown's price bounds. Return None if no price can match."""
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
