"""DetailScan: the full view of each product of a snapshot, looked up when a frame is executed."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.details.failure_limit import FailureLimit, require_share
from octogen_dagster.frames.details.lookups import LookupReader
from octogen_dagster.frames.details.rows import (
    ROW_GROUP_SIZE,
    DetailRows,
    ListedProducts,
    ReusableRows,
)
from octogen_dagster.frames.details.schema import DETAIL_SCHEMA, DETAIL_SCHEMA_VERSION
from octogen_dagster.frames.details.statistics import DetailStatistics, detail_figures
from octogen_dagster.frames.lazy_scan import Interval, LazyScan

if TYPE_CHECKING:
    from octogen_dagster.api.connection import Connection
    from octogen_dagster.frames.shutdown import ExitGuard
    from octogen_dagster.frames.snapshot_source import SnapshotPlace
    from octogen_dagster.frames.statistics import Figures

_MAX_BATCHES_AHEAD = 4


class DetailScan(LazyScan):
    """The full views of a snapshot's products as a lazy frame.

    Each address is looked up once. A product that is gone or whose lookup fails is a row with a
    status; too many failures end the read, as do a refused key and spent credit. A response about
    another product than the snapshot's is not stored under its name: the row's status is
    `mismatch`.

    Args:
        products: A product snapshot, columns as in `PRODUCT_SCHEMA`; it is executed twice.
        connection: How to reach the service; `concurrency` lookups are made at a time.
        only_changed: Carry over rows of the previous details snapshot whose products were found
            and are listed as they were.
        failure_threshold: Share of the lookups, 0 to 1, that may fail; rows that are carried over
            count as lookups that did not.
        report: Called about every ten seconds of a long read, and at its end.

    Attributes:
        frame: One row for each product, in order, lazily; the schema is `DETAIL_SCHEMA`.
        statistics: Those of the last execution of the frame.

    Raises:
        ValueError: failure_threshold is no share.
    """

    row_group_size = ROW_GROUP_SIZE
    statistics: DetailStatistics

    def __init__(
        self,
        products: pl.LazyFrame,
        connection: Connection,
        *,
        only_changed: bool = False,
        failure_threshold: float = 0.05,
        report: Callable[[DetailStatistics], None] | None = None,
    ) -> None:
        require_share(failure_threshold)
        self.products = products
        self.connection = connection
        self.only_changed = only_changed
        self.failure_threshold = failure_threshold
        self.statistics = DetailStatistics()
        self._previous: pl.LazyFrame | None = None
        self._report = report
        super().__init__(DETAIL_SCHEMA)

    def __reduce__(self) -> tuple[Callable[..., DetailScan], tuple[Any, ...]]:
        restore = functools.partial(
            type(self), only_changed=self.only_changed, failure_threshold=self.failure_threshold
        )
        return restore, (self.products, self.connection)

    @contextmanager
    def opened(self, place: SnapshotPlace) -> Iterator[None]:
        """Carry over rows of the latest snapshot of the place, if only changes are looked up."""
        try:
            self._previous = place.latest() if self.only_changed else None
        except OctogenSnapshotError as error:
            place.log(f"{error} Every product is looked up.")
        try:
            yield
        finally:
            self._previous = None

    def provenance(self) -> dict[str, str]:
        """`SnapshotSource.provenance`."""
        return {
            "octogen.fetched_at": self.statistics.started_at.isoformat(),
            "octogen.schema_version": str(DETAIL_SCHEMA_VERSION),
        }

    def figures(self, snapshot: pl.LazyFrame) -> Figures:
        """`SnapshotSource.figures`."""
        return {
            "only_changed": self.only_changed,
            **self.statistics.figures(),
            **detail_figures(snapshot),
        }

    def _frames(
        self, _columns: set[str], _predicate: pl.Expr | None, n_rows: int | None, guard: ExitGuard
    ) -> Iterator[pl.DataFrame]:
        statistics = self.statistics = DetailStatistics()
        products = ListedProducts(self.products if n_rows is None else self.products.head(n_rows))
        statistics.products = products.count
        limit = FailureLimit(self.failure_threshold, products.count, self.connection.retry.deadline)
        with LookupReader(self.connection, limit) as reader:
            self._begin(reader, guard)
            rows = DetailRows(products, self._reusable_rows(), reader, limit)
            statistics.unknown_fields = rows.unknown_fields
            try:
                yield from self._finished(rows, reader)
            finally:
                statistics.update(reader.sent)
        statistics.complete = True
        self._tell()

    def _finished(self, rows: DetailRows, reader: LookupReader) -> Iterator[pl.DataFrame]:
        """Yield the rows of the batches while the lookups of the next ones are made."""
        report = Interval(self._tell, self.report_interval_seconds)
        batches = rows.begin()
        begun = deque(itertools.islice(batches, _MAX_BATCHES_AHEAD))
        while begun:
            is_over = reader.wait(begun[0].lookups)
            self.statistics.update(reader.sent)
            report()
            if is_over:
                batch = begun.popleft()
                frame = rows.finish(batch)
                self.statistics.add(frame, batch)
                yield frame
                begun.extend(itertools.islice(batches, 1))

    def _tell(self) -> None:
        if self._report:
            self._report(self.statistics)

    def _reusable_rows(self) -> ReusableRows:
        if self._previous is not None:
            with contextlib.suppress(OSError, pl.exceptions.PolarsError):  # not Parquet any more
                if self._previous.collect_schema() == DETAIL_SCHEMA:
                    return ReusableRows(self._previous)
        return ReusableRows(DETAIL_SCHEMA.to_frame().lazy())
