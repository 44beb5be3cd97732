"""DetailScan: the full view of each product of a snapshot, looked up when its frame is executed."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.frames.details.lookups import FailureLimit, LookupReader, checked_share
from octogen_dagster.frames.details.rows import DetailRows, ListedProducts, ReusableRows
from octogen_dagster.frames.details.schema import DETAIL_SCHEMA, FAILED, FOUND, GONE, MISMATCH
from octogen_dagster.frames.lazy_scan import REPORT_INTERVAL_SECONDS, LazyScan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.requester import RequestStatistics
    from octogen_dagster.frames.shutdown import Turn

_BATCHES_AHEAD = 4


@dataclass(slots=True)
class DetailStatistics:
    """What the last execution of a scan did.

    Attributes:
        started_at: When it began.
        complete: It came to its end.
        products: Products in the snapshot.
        rows: Products whose row is there, before any filter of the query.
        found: Rows with the full view.
        gone: Rows of products that no granted catalog has any more.
        mismatched: Rows whose address leads to another product.
        failed: Rows whose lookup failed.
        carried_over: Rows taken from the previous snapshot.
        requests: Requests sent, retries among them.
        retries: Requests sent again after a failure.
        rate_limit_wait_seconds: Seconds waited for the organisation's rate limit, over all lookups.
        unknown_fields: Fields the schema does not know, by path, with the number of places.
        seconds: Wall time.
    """

    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    complete: bool = False
    products: int = 0
    rows: int = 0
    found: int = 0
    gone: int = 0
    mismatched: int = 0
    failed: int = 0
    carried_over: int = 0
    requests: int = 0
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0
    unknown_fields: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def looked_up(self) -> int:
        """Rows that were not carried over."""
        return self.rows - self.carried_over

    @property
    def rows_per_second(self) -> float:
        """Rows divided by wall time."""
        return self.rows / self.seconds if self.seconds else 0.0


class DetailScan(LazyScan):
    """The full views of a snapshot's products, with the statistics of looking them up.

    Each address is looked up once. A product that is gone or whose lookup fails is a row with a
    status; too many failures end the read, as do a refused key and spent credit. An answer about
    another product than the snapshot's is not stored under its name: the row says `mismatch`.

    Args:
        products: A product snapshot, columns as in `PRODUCT_SCHEMA`; it is executed twice.
        connection: How to reach the service; `concurrency` lookups are made at a time.
        only_changed: Carry over the rows of `previous` whose products are listed as they were and
            were found.
        failure_threshold: Share of the lookups, 0 to 1, that may fail; rows that are carried over
            count as lookups that did not.
        report: Called about every ten seconds of a long read, and at its end.

    Attributes:
        frame: One row for each product, in order, lazily; the schema is `DETAIL_SCHEMA`.
        statistics: Those of the last execution of the frame.
        previous: The details snapshot before; to be set before the frame is executed. One of
            another schema is not used.

    Raises:
        ValueError: failure_threshold is no share.
    """

    def __init__(
        self,
        products: pl.LazyFrame,
        connection: Connection,
        *,
        only_changed: bool = False,
        failure_threshold: float = 0.05,
        report: Callable[[DetailStatistics], None] | None = None,
    ) -> None:
        self.products = products
        self.connection = connection
        self.only_changed = only_changed
        self.failure_threshold = checked_share(failure_threshold)
        self.previous: pl.LazyFrame | None = None
        self.statistics = DetailStatistics()
        self._report = report
        super().__init__(DETAIL_SCHEMA)

    def __reduce__(self) -> tuple[Callable[..., DetailScan], tuple[Any, ...]]:
        restore = functools.partial(
            type(self), only_changed=self.only_changed, failure_threshold=self.failure_threshold
        )
        return restore, (self.products, self.connection)

    def _frames(
        self, _columns: set[str], _predicate: pl.Expr | None, n_rows: int | None, turn: Turn
    ) -> Iterator[pl.DataFrame]:
        statistics = self.statistics = DetailStatistics()
        began = reported = time.monotonic()
        products = ListedProducts(self.products if n_rows is None else self.products.head(n_rows))
        statistics.products = products.count
        patience = self.connection.retry.deadline
        limit = FailureLimit(self.failure_threshold, products.count, patience)
        with LookupReader(self.connection, limit) as reader:
            self._begin(reader, turn)
            rows = DetailRows(products, self._settled_rows(), reader, limit)
            statistics.unknown_fields = rows.unknown_fields
            try:
                batches = rows.begin()
                begun = deque(itertools.islice(batches, _BATCHES_AHEAD))
                while begun:
                    over = reader.wait(begun[0].lookups)
                    if self._report and time.monotonic() - reported >= REPORT_INTERVAL_SECONDS:
                        reported = time.monotonic()
                        _add_up(statistics, reader.sent, began)
                        self._report(statistics)
                    if over:
                        batch = begun.popleft()
                        frame = rows.finish(batch)
                        _count(statistics, frame, carried_over=len(batch.carried))
                        yield frame
                        begun.extend(itertools.islice(batches, 1))
            finally:
                _add_up(statistics, reader.sent, began)
        statistics.complete = True
        if self._report:
            self._report(statistics)

    def _settled_rows(self) -> ReusableRows:
        if self.only_changed and self.previous is not None:
            with contextlib.suppress(OSError, pl.exceptions.PolarsError):  # not Parquet any more
                if self.previous.collect_schema() == DETAIL_SCHEMA:
                    return ReusableRows(self.previous)
        return ReusableRows(DETAIL_SCHEMA.to_frame().lazy())


def _count(statistics: DetailStatistics, frame: pl.DataFrame, carried_over: int) -> None:
    counts = Counter(frame.get_column("status"))
    statistics.rows += len(frame)
    statistics.found += counts[FOUND]
    statistics.gone += counts[GONE]
    statistics.mismatched += counts[MISMATCH]
    statistics.failed += counts[FAILED]
    statistics.carried_over += carried_over


def _add_up(statistics: DetailStatistics, sent: RequestStatistics, began: float) -> None:
    statistics.seconds = time.monotonic() - began
    statistics.requests, statistics.retries = sent.requests, sent.retries
    statistics.rate_limit_wait_seconds = sent.rate_limit_wait_seconds
