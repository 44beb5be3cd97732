"""The source of a snapshot: it knows where its rows go, and says how they are to be stored."""

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
"""The smallest snapshot of whole catalogs that is published by default."""
CATALOGS = "octogen.catalogs"
"""The file metadata that says which catalogs were read, if that is known."""
SELECTION = "octogen.selection"
"""The file metadata that says which rows of a linked view were read, if not all of its catalogs."""
FETCHED_AT = "octogen.fetched_at"
"""The file metadata that says when the snapshot was read, or the one whose changes it has."""
STORED_AT = "octogen.stored_at"
"""The file metadata that says when the file was made."""
ROWS = "octogen.rows"
"""The file metadata that says how many rows it has."""
ROWS_PER_PRODUCT = "octogen.rows_per_product"
"""The file metadata of whole catalogs that says how many rows came for a product of the source."""

ANY = object()
"""Stands for any version of a file."""
RETURNED = (
    "a polars LazyFrame or DataFrame, a pandas DataFrame, a pyarrow Table, or "
    "OctogenResource.scan(...)"
)
"""The values that an asset may return."""

Metric = str | int | float | bool | datetime | list[str] | dict[str, object]
Metrics = dict[str, Metric]
"""Figures of a read by name, as plain values."""


TimeWindow = tuple[datetime, datetime]
"""The time that a snapshot is of: its beginning, inclusive, and its end, exclusive."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def is_within(window: TimeWindow, moment: datetime) -> bool:
    return window[0] <= moment < window[1]


@dataclass(frozen=True)
class SnapshotTarget:
    """The place of a snapshot, with the one that is there. Without a store it is nowhere."""

    log: Callable[[str], None]
    warn: Callable[[str], None]
    store: Store | None = None
    key: str = ""
    latest_key: Callable[[], str | None] = lambda: None
    saved_pages: str = ""
    resume_within: timedelta = timedelta()

    def latest(self) -> pl.LazyFrame | None:
        """Return the present snapshot, else the latest of an earlier time; None without any."""
        key = self.latest_key()
        return self.store.scan(key) if self.store and key else None

    def latest_metadata(self) -> Mapping[str, str]:
        """Return the file metadata of what `latest` returns; empty without a usable one."""
        try:
            key = self.latest_key()
            return self.store.metadata(key) if self.store and key else {}
        except OctogenSnapshotError:  # the publication warns of it
            return {}

    def version(self) -> object:
        """Return a value that no other file at the place has; None without a file."""
        return self.store.version(self.key) if self.store else None


@dataclass(frozen=True)
class Limits:
    """The size of row groups, and the conditions for replacing the snapshot before.

    `min_rows_percent` is the smallest number of rows to publish, in percent of the rows of the
    snapshot that is replaced; with 0 any number is published, and otherwise at least one.
    """

    row_group_size: int = ROW_GROUP_SIZE  # so many rows are held in memory
    min_rows_percent: float = 0
    shrinking_causes: str = ""  # of a snapshot that is smaller, for the error message


@dataclass(frozen=True)
class Outcome:
    """The report of an execution that has ended."""

    rows: int | None = None  # that were read, if it is known
    problem: str | None = None  # why they are not all that there are; None if nobody knows one
    file_metadata: Mapping[str, str] = field(default_factory=dict)  # for the metadata of the file
    metrics: Callable[[], Metrics] = dict  # of the execution
    row_metrics: Callable[[], Metrics] = dict


@dataclass(frozen=True)
class Reading:
    """A frame that is executed once and stored."""

    frame: pl.LazyFrame
    outcome: Callable[[], Outcome] = Outcome  # called when the rows are there
    limits: Limits = Limits()
    published: Callable[[], None] = lambda: None  # removes what was kept in case it is not
    replaces: object = ANY  # the version of the only file that it may replace


class RunSpending(Protocol):
    """The costs of what a run reads, and the budget that ends it."""

    budget_usd: float | None
    requests: int
    spent_usd: Decimal
    possibly_charged_usd: Decimal

    def raise_to(self, spent_usd: Decimal, possibly_charged_usd: Decimal) -> None:
        """Count what other steps and attempts of the run spent, besides this one."""


class SnapshotSource(Protocol):
    """A value that can be stored as a snapshot, besides a plain frame."""

    @property
    def spending(self) -> RunSpending | None:
        """The costs and budget of the reading; None if it costs nothing."""

    def reading(
        self, target: SnapshotTarget, stop: threading.Event
    ) -> AbstractContextManager[Reading]:
        """Let the block execute and store a frame for a target."""


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
    """Return what an asset returned as the source of a snapshot."""
    if isinstance(returned, pl.DataFrame | pl.LazyFrame):
        frame = returned.lazy()
        for name, dtype in frame.collect_schema().items():
            if dtype == pl.Object:
                raise _of_several_types(subject, name, "Polars keeps them as Python objects")
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
            f"{subject} returned nothing, so there is nothing to store. If it stores its result "
            "itself, annotate it `-> None`: Dagster then calls no IO manager. If not, return "
            f"{RETURNED}."
        )
    raise TypeError(
        f"{subject} returned {type(returned).__name__}, which cannot be stored as a snapshot. "
        f"Return {RETURNED}."
    )


def _is_frame(value: Any, module: str, name: str) -> bool:
    """True for an instance of a class of a package that need not be installed."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _from_pandas(frame: Any, subject: str) -> pl.DataFrame:
    """Convert a frame of pandas, with its index if that has a name, as after `groupby`."""
    try:
        arrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingPackageError(
            f"{subject} returned a pandas.DataFrame, which cannot be stored without pyarrow: pip "
            "install pyarrow"
        ) from error
    has_names = any(name is not None for name in frame.index.names)
    try:
        return pl.from_pandas(frame, include_index=has_names)
    except arrow.ArrowException:
        for name, column in frame.reset_index().items():
            try:
                pl.from_pandas(column)
            except arrow.ArrowException as error:
                raise _of_several_types(subject, name, str(error)) from error
        raise


def _of_several_types(subject: str, column: str, reason: str) -> TypeError:
    return TypeError(
        f"{subject}: the values of the column {column!r} are of several types ({reason}), and a "
        "column of a snapshot has one. Convert them first, such as to text: in pandas by "
        "astype(str)."
    )


def collected(
    source: SnapshotSource,
    subject: str,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    stop: threading.Event,
) -> tuple[pl.DataFrame, Outcome]:
    """Read a source into memory, and check it as far as that needs no snapshot before."""
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
    """Check that a written file holds all rows of its source."""
    if outcome.rows in (rows, None) and not outcome.problem:
        return
    problem = f"; {outcome.problem}" if outcome.problem else ""
    raise OctogenSnapshotError(
        f"The snapshot {uri} is not complete: {rows:,} rows were written of {outcome.rows or 0:,} "
        f"read{problem}. Nothing was published; run it again."
    )


def check_not_shrunken(limits: Limits, rows: int, replaced: int, uri: str) -> None:
    """Check that a snapshot did not lose most of the rows of the one that it replaces."""
    percent = limits.min_rows_percent
    if not percent or rows >= max(1, percent * replaced / 100):
        return
    there = f", and the latest snapshot has {replaced:,}" if replaced else ""
    raise OctogenShrunkenSnapshotError(
        f"The snapshot {uri} was not published: the service sent {rows or 'no'} products{there} "
        f"(min_rows_percent is {percent:g}). Nothing was changed. Likely causes: "
        f"{limits.shrinking_causes}. If the number is right, accept it for one run with "
        "`accept_shrinking: true` in the launchpad; min_rows_percent of the asset or of the scan "
        "sets the limit for all runs."
    )
