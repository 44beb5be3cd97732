"""Build LazyFrames from Python generators, and re-raise their errors unchanged."""

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
"""Yields a query's rows. The arguments are its columns, predicate, row limit and batch size."""


class Query(NamedTuple):
    """The columns, predicate and row limit that Polars pushes down to a Python source."""

    columns: set[str]  # the frames can have additional columns
    predicate: pl.Expr | None  # applied to the frames afterwards
    n_rows: int | None  # maximum rows before the predicate; None for all


Frames = Callable[[Query, threading.Event], Iterator[pl.DataFrame]]
"""Yields a query's rows, and stops waiting for further rows when the event is set."""

_raised: deque[Exception] = deque(maxlen=16)
"""Recent errors from sources. Polars 1 raises a `ComputeError` that quotes the error instead."""

_unfinished: dict[threading.Lock, threading.Event] = {}
"""The stop event of each unfinished execution, keyed by the execution's lock.

The lock is held while the source's Python code runs. Polars runs a source's generator in a separate
thread. Once a query such as a filtered `head` has enough rows, Polars leaves the generator running
or suspended. If a Rust thread calls into Python while the interpreter finalizes, the process aborts
("exception not rethrown", Python 3.11 to 3.13).
"""


def io_source(
    schema: pl.Schema, frames: Frames, stop: threading.Event | None = None
) -> pl.LazyFrame:
    """Return a lazy frame that calls `frames` on each execution, until `stop` is set."""
    read = functools.partial(_read, schema, frames, stop)
    frame = python_source(read, schema, validate=True)
    # Polars reads a pure source only once if a query uses it twice. The streaming engine does so
    # only if there is an operation on top of the source.
    return frame.select(pl.all())


def _read(
    schema: pl.Schema, frames: Frames, stop: threading.Event | None, *query: Any
) -> Iterator[pl.DataFrame]:
    """Yield a query's rows.

    This function is defined at module level so that pickles refer to it by name. A nested function
    would be pickled together with a copy of `_unfinished`.
    """
    with_columns, predicate, n_rows, _ = query
    columns = with_columns if with_columns is not None else list(schema)
    needed = {*columns, *(predicate.meta.root_names() if predicate is not None else ())}
    stop = stop or threading.Event()
    lock = threading.Lock()
    _unfinished[lock] = stop
    rows = frames(Query(needed, predicate, n_rows), stop)
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
    """Return a lazy frame that calls `read` on each execution and yields the rows."""
    is_polars_1 = pl.__version__.startswith("1.")
    source = functools.partial(_record_errors, read) if is_polars_1 else read
    return register_io_source(source, schema=schema, validate_schema=validate, is_pure=True)


def _record_errors(read: Read, *query: Any) -> Iterator[pl.DataFrame]:
    try:
        yield from read(*query)
    except Exception as error:
        if not isinstance(error, pl.exceptions.ComputeError):
            _raised.append(error)
        raise


@contextlib.contextmanager
def errors_as_raised() -> Iterator[None]:
    """Raise a source's original error instead of Polars 1's `ComputeError`."""
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
    """Execute a frame and yield it in batches.

    If the Polars version has no `collect_batches`, the whole result is held in memory.
    """
    if hasattr(frame, "collect_batches"):
        return iter(frame.collect_batches(chunk_size=chunk_size, **options))
    return frame.collect(engine="streaming").iter_slices(chunk_size or 10_000)


def raise_interrupt() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed.

    While Polars executes a query, Python's signal handlers only run when the query ends. A Polars
    operation raises the interrupt earlier, in any thread.
    """
    pl.Series([0]).sort()


def check(stop: threading.Event) -> None:
    """Raise an error if the execution was interrupted or stopped. Call this in Polars' thread.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        StoppedError: `stop` is set.
    """
    raise_interrupt()
    if stop.is_set():
        raise StoppedError


def until_stopped(frames: Iterable[pl.DataFrame], stop: threading.Event) -> Iterator[pl.DataFrame]:
    """Yield frames until the execution is interrupted or stopped."""
    for frame in frames:
        check(stop)
        yield frame


def _stop_all() -> None:
    unfinished = list(_unfinished.items())
    for _, stop in unfinished:
        stop.set()
    for lock, _ in unfinished:
        # Never released, so that a generator called again waits until the process ends.
        lock.acquire(timeout=_STEP_TIMEOUT)
    if unfinished:
        threading.Event().wait(_RETURN_TIMEOUT)


atexit.register(_stop_all)
