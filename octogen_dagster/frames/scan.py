"""scan_products: a search as a LazyFrame, and ProductScan: the same with its statistics."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import polars as pl
from typing_extensions import Self

from octogen_dagster.api.client import DEFAULT_TIMEOUT
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.urls import configured_base_url
from octogen_dagster.errors import (
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenResponseError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.decode import PageDecoder
from octogen_dagster.frames.dedup import SeenProducts
from octogen_dagster.frames.lazy_scan import REPORT_INTERVAL_SECONDS, LazyScan
from octogen_dagster.frames.pages.segments import LandedWalk, Landing
from octogen_dagster.frames.plan import ReadPlan, check_states, is_now, plan_live, plan_saved
from octogen_dagster.frames.pushdown import Pushdown
from octogen_dagster.frames.reader import PAGES_AT_ONCE, BulkReader, CatalogRead
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from octogen_dagster.frames.search import ProductSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from octogen_dagster.frames.pages.store import PageStore, TimeWindow
    from octogen_dagster.frames.plan import Granted
    from octogen_dagster.frames.shutdown import Turn
    from octogen_dagster.frames.wire import WirePage


@dataclass(slots=True)
class ScanStatistics:
    """What the last execution of a scan did.

    Attributes:
        started_at: When it began, or the one that it continues; the rows' `fetched_at`.
        complete: It came to its end: every page, or the cap.
        truncated: The cap left products unread.
        catalogs: Catalogs read, where they are known.
        rows: Products, each once, before any filter of the query.
        pages: Pages decoded.
        requests: Requests sent, retries among them.
        retries: Requests sent again after a failure.
        rate_limit_wait_seconds: Seconds waited for the organisation's rate limit, over all threads.
        repeats: Products that came again and were removed.
        restarts: Times the service began a walk again by itself.
        saved_pages: Pages that were not asked for, because they had been saved.
        rebuilt: Whether all of them were landed pages.
        unknown_fields: Fields the schema does not know, by path, with the number of places.
        first_request_id: Request id of the first page.
        last_request_id: Request id of the last page.
        seconds: Wall time.
    """

    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    complete: bool = False
    truncated: bool = False
    catalogs: list[str] = field(default_factory=list)
    rows: int = 0
    pages: int = 0
    requests: int = 0
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0
    repeats: int = 0
    restarts: int = 0
    saved_pages: int = 0
    rebuilt: bool = False
    unknown_fields: Counter[str] = field(default_factory=Counter)
    first_request_id: str | None = None
    last_request_id: str | None = None
    seconds: float = 0.0

    @property
    def rows_per_second(self) -> float:
        """Rows divided by wall time."""
        return self.rows / self.seconds if self.seconds else 0.0


class ProductScan(LazyScan):
    """A search that is read when its frame is executed, with the statistics of the reading.

    Args:
        search: What to read.
        connection: How to reach the service.
        report: Called about every ten seconds of a long read, and at its end.
        granted: Lists the granted catalogs, or says None for a service that does not; by default
            the service is asked where it must be.
        window: The beginning and the end of the time the snapshot is of: the service knows only
            the present, so another time is rebuilt from landed pages or refused.

    Attributes:
        frame: The products, lazily; the schema is `PRODUCT_SCHEMA`.
        statistics: Those of the last execution of the frame.
        search: What is read; after a rebuild, what had been.
    """

    def __init__(
        self,
        search: ProductSearch,
        connection: Connection,
        report: Callable[[ScanStatistics], None] | None = None,
        *,
        granted: Granted | None = None,
        window: TimeWindow | None = None,
    ) -> None:
        self.search = search
        self.connection = connection
        self.statistics = ScanStatistics()
        self._report = report
        self._granted = granted
        self._window = window
        self._store: PageStore | None = None
        self._log: Callable[[str], None] = lambda _line: None
        self._plan = ReadPlan(search, [])
        super().__init__(PRODUCT_SCHEMA)

    def save_pages(self, store: PageStore, log: Callable[[str], None]) -> None:
        """Save the pages of the whole frame as they come, and continue from those that are there.

        Args:
            store: Where to.
            log: Takes a line on what is continued and what is not.
        """
        self._store, self._log = store, log

    def land(self) -> None:
        """The frame was executed and is to be stored: keep its saved pages, if they are kept.

        Raises:
            OctogenSnapshotError: They cannot be kept.
        """
        if self._store is None or self._plan.landed:
            return
        for read in self._plan.reads:
            if read.saver and self._store.keep:
                read.saver.flush()
        self._store.land(self._landing())

    def published(self) -> None:
        """The frame was stored: remove the saved pages that are needed no more."""
        if self._store is None or self._plan.landed:
            return
        for read in self._plan.reads:
            if read.saver:
                with contextlib.suppress(OctogenSnapshotError):
                    read.saver.settle()
        self._store.publish(self._landing())

    def let_go(self) -> None:
        """Save no pages any more: the store and its threads end with the reads that use them."""
        self._store, self._plan = None, ReadPlan(self.search, [])

    def _landing(self) -> Landing:
        walks = [
            LandedWalk(read.catalog, read.saver.root, read.saver.segments)
            for read in self._plan.reads
            if read.saver
        ]
        search = self.search.model_dump(mode="json", exclude_none=True)
        return Landing(search, self._plan.started_at, walks)

    def __reduce__(self) -> tuple[type[Self], tuple[ProductSearch, Connection]]:
        return type(self), (self.search, self.connection)

    def _frames(
        self, columns: set[str], predicate: pl.Expr | None, n_rows: int | None, turn: Turn
    ) -> Iterator[pl.DataFrame]:
        # Polars hands over rows *before* the predicate as n_rows, so a cut one is not narrowed.
        pushdown = Pushdown()
        if predicate is not None and n_rows is None and self.search.max_products is None:
            pushdown = Pushdown.of(predicate)
        try:
            yield from self._batches(columns, pushdown, n_rows, turn)
        except (OctogenPagingError, OctogenResponseError):  # which saved pages may have caused
            if self._store and not self._plan.landed:
                for read in self._plan.reads:
                    if read.saver:
                        with contextlib.suppress(OctogenSnapshotError):
                            read.saver.discard()
            raise

    def _batches(
        self, columns: set[str], pushdown: Pushdown, n_rows: int | None, turn: Turn
    ) -> Iterator[pl.DataFrame]:
        whole = n_rows is None and pushdown == Pushdown()
        plan = self._plan = self._planned(pushdown, whole=whole)
        if whole:
            self.search = plan.search
        cap = self.search.max_products
        if n_rows is not None:
            cap = min(n_rows, cap or n_rows)
        reads = plan.reads if cap != 0 else []
        decoder = PageDecoder(columns, plan.started_at)
        statistics = self.statistics = ScanStatistics(
            started_at=plan.started_at,
            rebuilt=plan.landed,
            catalogs=[read.catalog for read in reads if read.catalog is not None],
            unknown_fields=decoder.unknown_fields,
        )
        began = reported = time.monotonic()
        seen: defaultdict[CatalogRead, SeenProducts] = defaultdict(SeenProducts)
        finished = 0
        with self._reader(reads, cap) as reader:
            self._begin(reader, turn)
            for batch in reader:
                if self._report and time.monotonic() - reported >= REPORT_INTERVAL_SECONDS:
                    reported = time.monotonic()
                    _add_up(statistics, reads, reader, began)
                    self._report(statistics)
                if batch is None:
                    continue
                read, pages = batch
                frame = decoder.decode(pages, read.catalog, read.walk.subject)
                frame = _without_repeats(frame, pages, seen[read], read)
                last = not pages[-1].next_cursor
                finished += last
                if last:
                    del seen[read]
                if cap is not None and statistics.rows + len(frame) >= cap:
                    left = statistics.rows + len(frame) - cap
                    statistics.truncated = bool(left) or finished < len(reads)
                    frame = frame.head(cap - statistics.rows)
                _count(statistics, frame, pages)
                _add_up(statistics, reads, reader, began)
                yield frame
                if cap is not None and statistics.rows >= cap:
                    break
            else:
                _check_finished(reads, finished)
                check_states(reads, self.connection)
            _add_up(statistics, reads, reader, began)
        if whole and self._store:
            reader.join()
        statistics.complete = True
        if self._report:
            self._report(statistics)
        yield decoder.decode([], None, "")

    def _reader(self, reads: Sequence[CatalogRead], cap: int | None) -> BulkReader:
        if cap is None:
            return BulkReader(self.connection, reads, self.connection.concurrency, PAGES_AT_ONCE)
        # A cap fills up in order, and nothing is asked for that it may not need.
        pages = min(PAGES_AT_ONCE, -(-cap // self.search.page_size))
        return BulkReader(self.connection, reads, 1, pages, read_ahead=False)

    def _planned(self, pushdown: Pushdown, *, whole: bool) -> ReadPlan:
        saved = whole and self._store is not None

        def live() -> ReadPlan:
            search = _narrowed(self.search, pushdown)
            if search is None:
                return ReadPlan(self.search, [])
            return plan_live(search, self.connection, self._granted, pushdown, saved=saved)

        if whole and self._store:
            plan = plan_saved(live, self._store, self.connection, self._window, self._log)
            if plan.search != self.search.model_copy(update={"page_size": plan.search.page_size}):
                self._log(
                    f"They are of another search than the one of now: {plan.search!r}. The "
                    "snapshot has what was captured."
                )
            return plan
        if self._window and not is_now(self._window):
            raise OctogenPastPartitionError(*self._window)
        return live()


def scan_products(
    search: ProductSearch,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    concurrency: int = 8,
    retry: RetryPolicy | None = None,
    reserve: float = 0.2,
) -> pl.LazyFrame:
    """A search as a LazyFrame; the service is asked when the frame is executed.

    Pages stream through the query: `sink_parquet` needs little memory whatever the size. Column
    projection, `head`, bounds on `current_price` and equality or `is_in` of `catalog_key` are
    pushed down to the service; the result is that of the query without.

    Args:
        search: What to read.
        api_key: The API key; by default `OCTO_API_KEY`, then `OCTOGEN_PLATFORM_API_KEY`.
        base_url: Where the API is; https, or http on this machine. By default
            `OCTOGEN_BASE_URL` of the environment, then Octogen itself.
        timeout: Seconds for each phase of one try of a request.
        concurrency: Catalogs that are read at the same time.
        retry: How requests are retried.
        reserve: Share (0 to 1) of the organisation's request budget that is left to others.

    Returns:
        Columns as in `PRODUCT_SCHEMA`; each product once, in the service's order within a catalog.

    Raises:
        MissingAPIKeyError: There is no key; raised at once.
        ValueError: A setting is out of its range; raised at once.
        OctogenError: Whatever goes wrong in reading; raised when the frame is executed.
    """
    connection = Connection(
        api_key=ApiKey(api_key),
        base_url=base_url or configured_base_url(),
        timeout=timeout,
        concurrency=concurrency,
        retry=retry or RetryPolicy(),
        reserve=reserve,
    )
    return ProductScan(search, connection).frame


def _narrowed(search: ProductSearch, pushdown: Pushdown) -> ProductSearch | None:
    """The search with the pushed price bounds; None if they leave nothing."""
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


def _without_repeats(
    frame: pl.DataFrame, pages: Sequence[WirePage], seen: SeenProducts, read: CatalogRead
) -> pl.DataFrame:
    new = seen.add(frame.get_column("uuid"))
    begin = 0
    for page in pages:
        products = len(page.uuids)
        fresh = int(new.slice(begin, products).sum())
        read.walk.deduplicated(new=fresh, repeats=products - fresh)
        begin += products
    return frame if new.all() else frame.filter(new)


def _check_finished(reads: Sequence[CatalogRead], finished: int) -> None:
    if finished < len(reads):
        raise OctogenSnapshotError(
            f"{len(reads) - finished} of {len(reads)} walks ended before their last page: landed "
            "pages are missing. Nothing was published."
        )


def _count(statistics: ScanStatistics, frame: pl.DataFrame, pages: Sequence[WirePage]) -> None:
    statistics.rows += len(frame)
    statistics.pages += len(pages)
    statistics.first_request_id = statistics.first_request_id or pages[0].request_id
    statistics.last_request_id = pages[-1].request_id


def _add_up(
    statistics: ScanStatistics, reads: Sequence[CatalogRead], reader: BulkReader, began: float
) -> None:
    statistics.seconds = time.monotonic() - began
    statistics.repeats = sum(read.walk.repeats for read in reads)
    statistics.restarts = sum(read.walk.restarts for read in reads)
    statistics.saved_pages = sum(read.saved_pages for read in reads)
    sent = reader.sent
    statistics.requests, statistics.retries = sent.requests, sent.retries
    statistics.rate_limit_wait_seconds = sent.rate_limit_wait_seconds
