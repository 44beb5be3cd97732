"""Sources of snapshots: the values that an asset can return to be stored as snapshots."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from octogen_dagster.background import run_in_thread
from octogen_dagster.errors import (
    MissingPackageError,
    OctogenShrunkenSnapshotError,
    OctogenSnapshotError,
)
from octogen_dagster.io_source import errors_as_raised
from octogen_dagster.printable import count
from octogen_dagster.storage.store import ROW_GROUP_SIZE

if TYPE_CHECKING:
    import threading
    from contextlib import AbstractContextManager
    from decimal import Decimal

    from octogen_dagster.storage.store import Store

MIN_ROWS_PERCENT = 50.0
"""Default minimum row count of a whole-catalog snapshot, as a percentage of the previous one."""
CATALOGS = "octogen.catalogs"
"""File metadata key for the list of catalogs that were read.

The key is missing if the catalogs are unknown.
"""
SELECTION = "octogen.selection"
"""File metadata key for the filter on a linked view. The key is missing if all rows were read."""
FETCHED_AT = "octogen.fetched_at"
"""File metadata key for the time at which the snapshot was read.

A file with changes between two snapshots contains the read time of the later snapshot.
"""
STORED_AT = "octogen.stored_at"
"""File metadata key for the time at which the file was written."""
ROWS = "octogen.rows"
"""File metadata key for the number of rows."""
ROWS_PER_PRODUCT = "octogen.rows_per_product"
"""File metadata key for each catalog's row count divided by the source's product count.

The ratio is stored only for catalogs that were read as a whole.
"""

ANY = object()
"""Matches any file version."""
RETURNED = (
    "a polars LazyFrame or DataFrame, a pandas DataFrame, a pyarrow Table, or "
    "OctogenResource.scan(...)"
)
"""The values that an asset can return."""

Metric = str | int | float | bool | datetime | list[str] | dict[str, object]
Metrics = dict[str, Metric]
"""The metrics of a read, by name."""


TimeWindow = tuple[datetime, datetime]
"""A snapshot's time window: its start (inclusive) and end (exclusive)."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def is_within(window: TimeWindow, moment: datetime) -> bool:
    return window[0] <= moment < window[1]


@dataclass(frozen=True)
class SnapshotTarget:
    """The destination for a new snapshot, with access to the latest snapshot.

    `store` is None if the rows are only read into memory.
    """

    log: Callable[[str], None]
    warn: Callable[[str], None]
    store: Store | None = None
    key: str = ""
    latest_key: Callable[[], str | None] = lambda: None
    saved_pages: str = ""
    resume_within: timedelta = timedelta()

    def latest(self) -> pl.LazyFrame | None:
        """Return the partition's current snapshot or, if it is missing, the latest earlier one.

        Return None if there are no snapshots.
        """
        key = self.latest_key()
        return self.store.scan(key) if self.store and key else None

    def latest_metadata(self) -> Mapping[str, str]:
        """Return the latest snapshot's file metadata; empty if no metadata can be read."""
        try:
            key = self.latest_key()
            return self.store.metadata(key) if self.store and key else {}
        except OctogenSnapshotError:  # publishing warns about it
            return {}

    def version(self) -> object:
        """Return a value that changes if the file is replaced; None if the file does not exist."""
        return self.store.version(self.key) if self.store else None


@dataclass(frozen=True)
class Limits:
    """Limits for storing a snapshot: the row group size and the minimum number of rows.

    `min_rows_percent` is the minimum as a percentage of the previous snapshot's row count. If it is
    0, a snapshot of any size is published. Otherwise, at least one row is required.
    """

    row_group_size: int = ROW_GROUP_SIZE  # rows held in memory
    min_rows_percent: float = 0
    shrinking_causes: str = ""  # of a smaller snapshot, for the error message


@dataclass(frozen=True)
class Outcome:
    """The result of a finished read."""

    rows: int | None = None  # rows read, if known
    problem: str | None = None  # why rows are missing, if known
    file_metadata: Mapping[str, str] = field(default_factory=dict)  # extra file metadata
    metrics: Callable[[], Metrics] = dict  # metrics about the read
    row_metrics: Callable[[], Metrics] = dict


@dataclass(frozen=True)
class Reading:
    """An open read, whose `frame` must be executed exactly once."""

    frame: pl.LazyFrame
    outcome: Callable[[], Outcome] = Outcome  # called after the rows are read
    limits: Limits = Limits()
    published: Callable[[], None] = lambda: None  # removes the data that was kept for a retry
    replaces: object = ANY  # publish only if the file still has this version


class RunSpending(Protocol):
    """The costs of a run's reads, and the budget that limits these costs."""

    budget_usd: float | None
    requests: int
    spent_usd: Decimal
    possibly_charged_usd: Decimal

    def raise_to(self, spent_usd: Decimal, possibly_charged_usd: Decimal) -> None:
        """Raise each total to the whole run's total, which includes other steps and attempts."""


class SnapshotSource(Protocol):
    """A value that can be stored as a snapshot, such as a `ProductScan`."""

    @property
    def spending(self) -> RunSpending | None:
        """The cost and budget of reading this source; None if reading is free."""

    def reading(
        self, target: SnapshotTarget, stop: threading.Event
    ) -> AbstractContextManager[Reading]:
        """Open a read. The caller executes the read's frame once and stores the rows."""


class FrameSource:
    """A snapshot source that returns the rows of a Polars frame."""

    spending = None

    def __init__(
        self,
        frame: pl.LazyFrame,
        file_metadata: Mapping[str, str] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._frame = frame
        self._outcome = Outcome(file_metadata=file_metadata or {}, metrics=lambda: metrics or {})

    @contextlib.contextmanager
    def reading(self, _target: SnapshotTarget, _stop: threading.Event) -> Iterator[Reading]:
        yield Reading(self._frame, lambda: self._outcome)


def source_of(returned: Any, subject: str) -> SnapshotSource:
    """Return a snapshot source for an asset's return value."""
    if isinstance(returned, pl.DataFrame | pl.LazyFrame):
        frame = returned.lazy()
        for name, dtype in frame.collect_schema().items():
            if dtype == pl.Object:
                raise _mixed_types(subject, name, "Polars keeps them as Python objects")
        return FrameSource(frame)
    if _is_frame(returned, "pandas", "DataFrame"):
        return FrameSource(_from_pandas(returned, subject).lazy())
    if _is_frame(returned, "pyarrow", "Table"):
        return FrameSource(pl.DataFrame(returned).lazy())
    if hasattr(returned, "reading"):
        source: SnapshotSource = returned
        return source
    if returned is None:
        raise TypeError(
            f"{subject} returned None, so there is nothing to store. If the asset stores its "
            "result itself, annotate the function with `-> None`, so that Dagster skips the IO "
            f"manager. Otherwise, return {RETURNED}."
        )
    raise TypeError(
        f"{subject} returned {type(returned).__name__}, which cannot be stored as a snapshot. "
        f"Return {RETURNED}."
    )


def _is_frame(value: Any, module: str, name: str) -> bool:
    """True if a value is an instance of a class in a package that might not be installed."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _from_pandas(frame: Any, subject: str) -> pl.DataFrame:
    """Convert a pandas DataFrame.

    If an index has names, for example after `groupby`, the index levels become columns.
    """
    try:
        arrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingPackageError(
            f"{subject} returned a pandas.DataFrame, which cannot be stored without pyarrow. Add "
            "pyarrow to your project's dependencies."
        ) from error
    has_names = any(name is not None for name in frame.index.names)
    try:
        return pl.from_pandas(frame, include_index=has_names)
    except arrow.ArrowException:
        for name, column in frame.reset_index().items():
            try:
                pl.from_pandas(column)
            except arrow.ArrowException as error:
                raise _mixed_types(subject, name, str(error)) from error
        raise


def _mixed_types(subject: str, column: str, reason: str) -> TypeError:
    return TypeError(
        f"{subject}: the column {column!r} has values of several types ({reason}), but a snapshot "
        "column must have one type. Convert the values first, for example with astype(str) in "
        "pandas."
    )


def collected(
    source: SnapshotSource,
    subject: str,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    stop: threading.Event,
) -> tuple[pl.DataFrame, Outcome]:
    """Read a source into memory. Run only the checks that do not require a previous snapshot."""
    with source.reading(SnapshotTarget(log, warn), stop) as reading:

        def collect() -> pl.DataFrame:
            return reading.frame.collect(engine="streaming")

        with errors_as_raised():
            frame = run_in_thread(collect, "octogen-collect", stop)
        outcome = reading.outcome()
        check_complete(outcome, len(frame), subject)
        check_not_shrunken(reading.limits, len(frame), 0, subject)
    return frame, outcome


def check_complete(outcome: Outcome, rows: int, uri: str) -> None:
    """Raise an error if a file does not contain all rows that its source returned."""
    if outcome.rows in (rows, None) and not outcome.problem:
        return
    problem = f"; {outcome.problem}" if outcome.problem else ""
    raise OctogenSnapshotError(
        f"The snapshot {uri} is incomplete: {rows:,} of {outcome.rows or 0:,} rows were written"
        f"{problem}. Nothing was published. Run the asset again."
    )


def check_not_shrunken(limits: Limits, rows: int, replaced: int, uri: str) -> None:
    """Raise an error if a snapshot has too few rows compared with the previous snapshot."""
    percent = limits.min_rows_percent
    if not percent or rows >= max(1, percent * replaced / 100):
        return
    there = f", but the latest snapshot has {replaced:,}" if replaced else ""
    products = count(rows, "product") if rows else "no products"
    raise OctogenShrunkenSnapshotError(
        f"The snapshot {uri} was not published. The read returned {products}{there} "
        f"(min_rows_percent is {percent:g}). Likely causes: {limits.shrinking_causes}. If the "
        "number is correct, set `accept_shrinking: true` in the launchpad for one run, or change "
        "min_rows_percent on the asset or the scan for all runs."
    )
