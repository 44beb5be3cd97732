"""LazyScan: what scans of searches and of details have in common as sources of a LazyFrame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from octogen_dagster.frames.shutdown import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from octogen_dagster.frames.client_threads import ClientThreads

REPORT_INTERVAL_SECONDS = 10.0


class LazyScan(ABC):
    """Rows that are read by threads when a frame is executed, until someone stops them.

    Args:
        schema: The frame's.

    Attributes:
        frame: The rows, lazily.
    """

    def __init__(self, schema: pl.Schema) -> None:
        self._schema = schema
        self._threads: ClientThreads | None = None
        self._stopped = False
        self.frame: pl.LazyFrame = register_io_source(
            self._read, schema=schema, validate_schema=True, is_pure=False
        )

    def stop(self) -> None:
        """End the execution that is under way, and any later one: it raises where it runs."""
        self._stopped = True
        if self._threads is not None:
            self._threads.close()

    @abstractmethod
    def _frames(
        self, columns: set[str], predicate: pl.Expr | None, n_rows: int | None, turn: Turn
    ) -> Iterator[pl.DataFrame]:
        """The rows, before the predicate.

        Args:
            columns: What is needed of the schema; more does not matter.
            predicate: The query's filter, which the frames are put through afterwards.
            n_rows: The first so many are enough; more are not allowed.
            turn: To be handed to `_begin` with the threads.
        """

    def _begin(self, threads: ClientThreads, turn: Turn) -> None:
        """These threads are at work for the execution whose turn this is."""
        self._threads, turn.stop = threads, threads.close
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
        turn = Turn()
        frames = self._frames(needed, predicate, n_rows, turn)
        try:
            while True:
                with turn:
                    frame = next(frames, None)
                    if frame is not None and predicate is not None:
                        frame = frame.filter(predicate)
                if frame is None:
                    return
                # Without a column a query still counts rows.
                yield frame.select(columns) if columns else pl.DataFrame(height=len(frame))
        finally:
            turn.finish()
