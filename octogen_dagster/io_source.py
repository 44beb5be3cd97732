"""A LazyFrame whose rows Python makes when it is executed, and its errors as they were raised."""

from __future__ import annotations

import atexit
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import polars as pl
from polars.io.plugins import register_io_source

from octogen_dagster.background import StoppedError

_STEP_TIMEOUT = 5.0
_RETURN_TIMEOUT = 0.1

Read: TypeAlias = (
    "Callable[[list[str] | None, pl.Expr | None, int | None, int | None], Iterator[pl.DataFrame]]"
)
"""Yields the rows of a query: its columns, predicate, number of rows and size of a batch."""


class Query(NamedTuple):
    """The columns, rows and filter that a query needs of a source."""

    columns: set[str]  # the frames may have more
    predicate: pl.Expr | None  # it is applied to the frames afterwards
    n_rows: int | None  # the most rows, before the predicate; None for all


Frames = Callable[[Query, threading.Event], Iterator[pl.DataFrame]]
"""Yields the rows of a query. The event ends what it waits for."""

_raised: deque[Exception] = deque(maxlen=16)
"""The last errors of sources, which Polars 1 turns into a `ComputeError` with their text."""

_unfinished: dict[threading.Lock, threading.Event] = {}
"""The event that ends each unfinished execution, by a lock that is held while Python code runs.

Polars runs a source's generator in a thread of its own, and a query that has enough rows (a
filtered `head`) leaves it running or suspended. A thread of Rust that calls back into Python while
the interpreter finalizes aborts the process ("exception not rethrown", Python 3.11 to 3.13).
"""


def io_source(
    schema: pl.Schema, frames: Frames, stop: threading.Event | None = None
) -> pl.LazyFrame:
    """Return a lazy frame whose rows `frames` yields."""
    read = functools.partial(_read, schema, frames, stop)
    frame = python_source(read, schema, validate=True)
    # Polars reads a pure source once that occurs twice in a query, but its streaming engine does so
    # only with an operation on top of the source.
    return frame.select(pl.all())


def _read(
    schema: pl.Schema, frames: Frames, stop: threading.Event | None, *query: Any
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query.

    A pickle names this function. One that is nested would be pickled with a copy of `_unfinished`.
    """
    with_columns, predicate, n_rows, _ = query
    columns = with_columns if with_columns is not None else list(schema)
    needed = {*columns, *(predicate.meta.root_names() if predicate is not None else ())}
    ends = stop or threading.Event()
    lock = threading.Lock()
    _unfinished[lock] = ends
    rows = frames(Query(needed, predicate, n_rows), ends)
    try:
        while True:
            with lock:
                frame = next(rows, None)
                if frame is not None and predicate is not None:
                    frame = frame.filter(predicate)
            if frame is None:
                return
            # A query without columns still counts rows.
            yield frame.select(columns) if columns else pl.DataFrame(height=len(frame))
    finally:
        _unfinished.pop(lock)


def python_source(read: Read, schema: pl.Schema, *, validate: bool = False) -> pl.LazyFrame:
    """Return a lazy frame whose rows `read` yields, once for each execution."""
    is_polars_1 = pl.__version__.startswith("1.")
    source = functools.partial(_remembering, read) if is_polars_1 else read
    return register_io_source(source, schema=schema, validate_schema=validate, is_pure=True)


def _remembering(read: Read, *query: Any) -> Iterator[pl.DataFrame]:
    try:
        yield from read(*query)
    except Exception as error:
        if not isinstance(error, pl.exceptions.ComputeError):
            _raised.append(error)
        raise


@contextlib.contextmanager
def errors_as_raised() -> Iterator[None]:
    """Raise the error of a source that the block executes, and not what Polars 1 makes of it."""
    try:
        yield
    except pl.exceptions.ComputeError as error:
        text = str(error)
        for raised in reversed(_raised.copy()):
            if f"{type(raised).__name__}: {raised}" in text:
                _raised.remove(raised)
                raise raised from None
        raise


def collect_batches(
    frame: pl.LazyFrame, chunk_size: int | None = None, **options: Any
) -> Iterator[pl.DataFrame]:
    """Execute a frame and yield batches of it; as a whole, where Polars cannot do so any more."""
    if hasattr(frame, "collect_batches"):
        return iter(frame.collect_batches(chunk_size=chunk_size, **options))
    return frame.collect(engine="streaming").iter_slices(chunk_size or 10_000)


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


def _stop_all() -> None:
    unfinished = list(_unfinished.items())
    for _, stop in unfinished:
        stop.set()
    for lock, _ in unfinished:
        # It is never released: a generator that is called again waits until the process ends.
        lock.acquire(timeout=_STEP_TIMEOUT)
    if unfinished:
        threading.Event().wait(_RETURN_TIMEOUT)


atexit.register(_stop_all)
