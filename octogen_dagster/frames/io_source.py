"""io_source: a LazyFrame whose rows are made when it is executed."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import polars as pl

from octogen_dagster.background import StoppedError
from octogen_dagster.python_source import python_source

_STEP_TIMEOUT = 5.0
_RETURN_TIMEOUT = 0.1


class Query(NamedTuple):
    """The columns, rows and filter that a query needs of a source."""

    columns: set[str]  # the frames may have more
    predicate: pl.Expr | None  # it is applied to the frames afterwards
    n_rows: int | None  # the most rows, before the predicate; None for all


Frames = Callable[[Query, threading.Event], Iterator[pl.DataFrame]]
"""Yields the rows of a query. The event ends what it waits for."""


def io_source(
    schema: pl.Schema, frames: Frames, stop: threading.Event | None = None
) -> pl.LazyFrame:
    """Return a lazy frame whose rows `frames` yields.

    `stop` ends its executions; by default each has an end of its own.
    """
    source = _Source(schema, frames, stop)
    frame = python_source(source, schema, validate=True)
    # Polars reads a pure source once that occurs twice in a query, but its streaming engine does so
    # only with an operation on top of the source.
    return frame.select(pl.all())


def raise_interrupt() -> None:
    """Raise KeyboardInterrupt after Ctrl-C.

    While Polars runs a query, Python's own handler of signals has to wait for its end. Any
    operation of Polars raises the interrupt, in whichever thread.
    """
    pl.Series([0]).sort()


def check(stop: threading.Event) -> None:
    """Return if an execution may go on, in the thread in which Polars runs it."""
    raise_interrupt()
    if stop.is_set():
        raise StoppedError


def until_stopped(frames: Iterable[pl.DataFrame], stop: threading.Event) -> Iterator[pl.DataFrame]:
    """Yield frames as long as an execution may go on."""
    for frame in frames:
        check(stop)
        yield frame


class _Source:
    """The callable that Polars executes a frame by. It can be pickled if `frames` can."""

    def __init__(self, schema: pl.Schema, frames: Frames, stop: threading.Event | None) -> None:
        self._schema = schema
        self._frames = frames
        self._stop = stop

    def __call__(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        _batch_size: int | None,
    ) -> Iterator[pl.DataFrame]:
        columns = with_columns if with_columns is not None else list(self._schema)
        needed = {*columns, *(predicate.meta.root_names() if predicate is not None else ())}
        stop = self._stop or threading.Event()
        guard = _ExitGuard(stop.set)
        frames = self._frames(Query(needed, predicate, n_rows), stop)
        try:
            while True:
                with guard.lock:
                    frame = next(frames, None)
                    if frame is not None and predicate is not None:
                        frame = frame.filter(predicate)
                if frame is None:
                    return
                # A query without columns still counts rows.
                yield frame.select(columns) if columns else pl.DataFrame(height=len(frame))
        finally:
            _unfinished.discard(guard)


class _ExitGuard:
    """Ends an unfinished execution before the interpreter exits.

    Polars runs a source's generator in a thread of its own, and a query that has enough rows (a
    filtered `head`) leaves it running or suspended. A thread of Rust that calls back into Python
    while the interpreter finalizes aborts the process ("exception not rethrown", Python 3.11 to
    3.13). So `lock` is held while the generator runs Python code.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.lock = threading.Lock()
        _unfinished.add(self)


_unfinished: weakref.WeakSet[_ExitGuard] = weakref.WeakSet()


def _stop_all() -> None:
    guards = list(_unfinished)
    for guard in guards:
        guard.stop()
    for guard in guards:
        # It is never released: a generator that is called again waits until the process ends.
        guard.lock.acquire(timeout=_STEP_TIMEOUT)
    if guards:
        threading.Event().wait(_RETURN_TIMEOUT)


atexit.register(_stop_all)
