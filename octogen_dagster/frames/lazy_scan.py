"""LazyScan: a LazyFrame whose rows are read when it is executed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from octogen_dagster.api.cancellation import CancelScope
from octogen_dagster.frames.shutdown import ExitGuard
from octogen_dagster.frames.snapshot_source import SnapshotSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Interval:
    """Calls a function whenever it is called itself, but at most once per interval.

    Args:
        function: The function to call.
        seconds: The shortest time between two calls.
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


def _raise_interrupt() -> None:
    """Raise KeyboardInterrupt after Ctrl-C.

    While Polars runs a query, Python's own handler of signals has to wait for its end. Any
    operation of Polars raises the interrupt, in whichever thread.
    """
    pl.Series([0]).sort()


class LazyScan(SnapshotSource, ABC):
    """A snapshot source whose rows are read from elsewhere when the frame is executed.

    Args:
        schema: The schema of the frame.
    """

    def __init__(self, schema: pl.Schema) -> None:
        self._schema = schema
        self._scope = CancelScope(poll=_raise_interrupt)
        source = register_io_source(self._read, schema=schema, validate_schema=True, is_pure=True)
        # Polars reads a pure source once that occurs twice in a query, but its streaming engine
        # does so only with an operation on top of the source.
        super().__init__(source.select(pl.all()))

    def stop(self) -> None:
        """End the current execution and any later one; each raises `ClosedError` where it runs."""
        self._scope.cancel()

    @abstractmethod
    def _frames(
        self, columns: set[str], predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows, before the predicate is applied.

        Args:
            columns: The columns that are needed; the frames may have more.
            predicate: The filter of the query; it is applied to the frames afterwards.
            n_rows: The largest number of rows to yield; None for all.
        """

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
        guard = ExitGuard(self.stop)
        frames = self._frames(needed, predicate, n_rows)
        try:
            while True:
                with guard:
                    frame = next(frames, None)
                    if frame is not None and predicate is not None:
                        frame = frame.filter(predicate)
                if frame is None:
                    return
                # A query without columns still counts rows.
                yield frame.select(columns) if columns else pl.DataFrame(height=len(frame))
        finally:
            guard.finish()
