"""LazyScan: rows that threads read when a LazyFrame is executed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from octogen_dagster.frames.shutdown import ExitGuard
from octogen_dagster.frames.snapshot_source import SnapshotSource
from octogen_dagster.frames.statistics import ReadStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from octogen_dagster.frames.client_threads import ClientThreads


class Interval:
    """Calls a function, but not sooner than some time after its last call.

    Args:
        function: The function.
        seconds: The time between two calls.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        function: Callable[[], None],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._function = function
        self._seconds = seconds
        self._clock = clock
        self._called_at = clock()

    def __call__(self) -> None:
        now = self._clock()
        if now - self._called_at >= self._seconds:
            self._called_at = now
            self._function()


class LazyScan(SnapshotSource, ABC):
    """A snapshot source whose rows come from the service.

    Args:
        schema: The schema of the frame.

    Attributes:
        statistics: Those of the last execution.
        report_interval_seconds: The time between two reports of a long read.
    """

    statistics: ReadStatistics
    report_interval_seconds = 10.0

    def __init__(self, schema: pl.Schema) -> None:
        self._schema = schema
        self._threads: ClientThreads | None = None
        self._stopped = False
        super().__init__(
            register_io_source(self._read, schema=schema, validate_schema=True, is_pure=False)
        )

    def stop(self) -> None:
        """End the execution that is under way, and any later one: it raises where it runs."""
        self._stopped = True
        if self._threads is not None:
            self._threads.close()

    def incomplete_reason(self, rows: int) -> str | None:
        """`SnapshotSource.incomplete_reason`."""
        if self.statistics.complete and rows == self.statistics.rows:
            return None
        return f"{rows} rows were written of {self.statistics.rows} read."

    @abstractmethod
    def _frames(
        self, columns: set[str], predicate: pl.Expr | None, n_rows: int | None, guard: ExitGuard
    ) -> Iterator[pl.DataFrame]:
        """The rows, before the predicate.

        Args:
            columns: The columns that are needed; more do not matter.
            predicate: The query's filter; the frames are filtered by it afterwards.
            n_rows: The number of rows that are enough; more are not allowed.
            guard: Passed on to `_begin` with the threads.
        """

    def _begin(self, threads: ClientThreads, guard: ExitGuard) -> None:
        """Note the threads of the execution that the guard belongs to."""
        self._threads, guard.stop = threads, threads.close
        if self._stopped:
            threads.close()

    def _read(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        _batch_size: int | None,
    ) -> Iterator[pl.DataFrame]:
        columns = with_columns if with_columns is not None else list(self._schema)
        needed = set(columns)
        if predicate is not None:
            needed.update(predicate.meta.root_names())
        guard = ExitGuard()
        frames = self._frames(needed, predicate, n_rows, guard)
        try:
            while True:
                with guard:
                    frame = next(frames, None)
                    if frame is not None and predicate is not None:
                        frame = frame.filter(predicate)
                if frame is None:
                    return
                # Without a column a query still counts rows.
                yield frame.select(columns) if columns else pl.DataFrame(height=len(frame))
        finally:
            guard.finish()
