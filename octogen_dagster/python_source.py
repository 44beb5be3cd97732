"""A LazyFrame whose rows Python makes, and the errors of such a source as they were raised."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import polars as pl

Read: TypeAlias = (
    "Callable[[list[str] | None, pl.Expr | None, int | None, int | None], Iterator[pl.DataFrame]]"
)
"""Yields the rows of a query: its columns, predicate, number of rows and size of a batch."""

_raised: deque[Exception] = deque(maxlen=16)
"""The last errors of sources, which Polars 1 turns into a `ComputeError` with their text."""


def python_source(read: Read, schema: pl.Schema, *, validate: bool = False) -> pl.LazyFrame:
    """Return a lazy frame whose rows `read` yields, once for each execution."""
    import polars as pl
    from polars.io.plugins import register_io_source

    def remembering(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        try:
            yield from read(columns, predicate, n_rows, size)
        except Exception as error:
            if not isinstance(error, pl.exceptions.ComputeError):
                _raised.append(error)
            raise

    is_polars_1 = pl.__version__.startswith("1.")
    source = remembering if is_polars_1 else read
    return register_io_source(source, schema=schema, validate_schema=validate, is_pure=True)


@contextlib.contextmanager
def errors_as_raised() -> Iterator[None]:
    """Raise the error of a source that the block executes, and not what Polars 1 makes of it."""
    import polars as pl

    try:
        yield
    except pl.exceptions.ComputeError as error:
        text = str(error)
        for raised in reversed(_raised.copy()):
            if f"{type(raised).__name__}: {raised}" in text:
                _raised.remove(raised)
                raise raised from None
        raise
