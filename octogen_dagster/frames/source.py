"""SnapshotSource: what an asset returns, including how to read, check and store it."""

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
from octogen_dagster.storage.store import ROW_GROUP_SIZE

if TYPE_CHECKING:
    import threading
    from contextlib import AbstractContextManager
    from decimal import Decimal

    from octogen_dagster.storage.store import Store

MIN_ROWS_PERCENT = 50.0
"""Default minimum size of a snapshot of whole catalogs, in percent of the previous row count."""
CATALOGS = "octogen.catalogs"
"""File metadata key: the catalogs that were read, if known."""
SELECTION = "octogen.selection"
"""File metadata key: which rows of a linked view were read, unless all of them were."""
FETCHED_AT = "octogen.fetched_at"
"""File metadata key: when the snapshot was read; for changes, when the later snapshot was read."""
STORED_AT = "octogen.stored_at"
"""File metadata key: when the file was written."""
ROWS = "octogen.rows"
"""File metadata key: the number of rows."""
ROWS_PER_PRODUCT = "octogen.rows_per_product"
"""File metadata key for whole catalogs: rows read per product in the source's count."""

ANY = object()
"""Matches any file version."""
RETURNED = (
    "a polars LazyFrame or DataFrame, a pandas DataFrame, a pyarrow Table, or "
    "OctogenResource.scan(...)"
)
"""The values that an asset can return."""

Metric = str | int | float | bool | datetime | list[str] | dict[str, object]
Metrics = dict[str, Metric]
"""A read's metrics by name, as plain values."""


TimeWindow = tuple[datetime, datetime]
"""A snapshot's time window: its start (inclusive) and end (exclusive)."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def is_within(window: TimeWindow, moment: datetime) -> bool:
    return window[0] <= moment < window[1]


@dataclass(frozen=True)
class SnapshotTarget:
    """Where a snapshot is stored, and the latest snapshot there. By default, there is no store."""

    log: Callable[[str], None]
    warn: Callable[[str], None]
    store: Store | None = None
    key: str = ""
    latest_key: Callable[[], str | None] = lambda: None
    saved_pages: str = ""
    resume_within: timedelta = timedelta()

    def latest(self) -> pl.LazyFrame | None:
        """Return the current snapshot or, if it is missing, the latest earlier one."""
        key = self.latest_key()
        return self.store.scan(key) if self.store and key else None

    def latest_metadata(self) -> Mapping[str, str]:
        """Return the file metadata for `latest`; empty if no snapshot is usable."""
        try:
            key = self.latest_key()
            return self.store.metadata(key) if self.store and key else {}
        except OctogenSnapshotError:  # publishing warns about it
            return {}

    def version(self) -> object:
        """Return a value that changes with the file; None if the file does not exist."""
        return self.store.version(self.key) if self.store else None


@dataclass(frozen=True)
class Limits:
    """The row group size, and the conditions for replacing the previous snapshot.

    `min_rows_percent` is the smallest row count to publish, in percent of the previous snapshot's
    rows. With 0, any number is published; otherwise, at least one row is needed.
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
    """A frame to execute once and store."""

    frame: pl.LazyFrame
    outcome: Callable[[], Outcome] = Outcome  # called after the rows are read
    limits: Limits = Limits()
    published: Callable[[], None] = lambda: None  # cleans up data kept for a retry
    replaces: object = ANY  # publish only if the file still has this version


class RunSpending(Protocol):
    """The costs of a run's reads, and the budget that limits these costs."""

    budget_usd: float | None
    requests: int
    spent_usd: Decimal
    possibly_charged_usd: Decimal

    def raise_to(self, spent_usd: Decimal, possibly_charged_usd: Decimal) -> None:
        """Increase the totals to include the run's other steps and attempts."""


class SnapshotSource(Protocol):
    """A value other than a plain frame that can be stored as a snapshot."""

    @property
    def spending(self) -> RunSpending | None:
        """The costs and budget for reading; None if reading is free."""

    def reading(
        self, target: SnapshotTarget, stop: threading.Event
    ) -> AbstractContextManager[Reading]:
        """Open a `Reading`, whose frame the caller executes once and stores."""


class FrameSource:
    """A plain frame as a source."""

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
            f"{subject} returned None, so there is nothing to store. If it stores its result "
            "itself, annotate it `-> None`: Dagster then skips the IO manager. Otherwise, return "
            f"{RETURNED}."
        )
    raise TypeError(
        f"{subject} returned {type(returned).__name__}, which cannot be stored as a snapshot. "
        f"Return {RETURNED}."
    )


def _is_frame(value: Any, module: str, name: str) -> bool:
    """True for an instance of a class in an optional package."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _from_pandas(frame: Any, subject: str) -> pl.DataFrame:
    """Convert a pandas DataFrame, including its index if that is named, such as after `groupby`."""
    try:
        arrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingPackageError(
            f"{subject} returned a pandas.DataFrame, which needs pyarrow to be stored. Add pyarrow "
            "to your project's dependencies."
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
    """Read a source into memory, running only the checks that need no previous snapshot."""
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
    """Check that a written file has all rows from its source."""
    if outcome.rows in (rows, None) and not outcome.problem:
        return
    problem = f"; {outcome.problem}" if outcome.problem else ""
    raise OctogenSnapshotError(
        f"The snapshot {uri} is incomplete: {rows:,} of {outcome.rows or 0:,} rows read were "
        f"written{problem}. Nothing was published. Run the asset again."
    )


def check_not_shrunken(limits: Limits, rows: int, replaced: int, uri: str) -> None:
    """Check that a snapshot did not lose most of the rows it replaces."""
    percent = limits.min_rows_percent
    if not percent or rows >= max(1, percent * replaced / 100):
        return
    there = f", and the latest snapshot has {replaced:,}" if replaced else ""
    raise OctogenShrunkenSnapshotError(
        f"The snapshot {uri} was not published: the service sent {rows or 'no'} products{there} "
        f"(min_rows_percent is {percent:g}). Nothing was changed. Likely causes: "
        f"{limits.shrinking_causes}. If the number is right, set `accept_shrinking: true` in the "
        "launchpad for one run, or change min_rows_percent on the asset or the scan for all runs."
    )
