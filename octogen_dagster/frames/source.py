"""Reading: a frame that is stored as a snapshot, with all that its storing asks. Stores nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

import polars as pl

from octogen_dagster.errors import OctogenShrunkenSnapshotError, OctogenSnapshotError

if TYPE_CHECKING:
    import threading
    from contextlib import AbstractContextManager

    from octogen_dagster.api.spending import Spending
    from octogen_dagster.frames.pages import PageStore

ROW_GROUP_SIZE = 20_000
MIN_ROWS_RATIO = 0.5
"""The smallest snapshot of whole catalogs that is published by default."""
CATALOGS = "octogen.catalogs"
"""The file metadata that says which catalogs were read, if that is known."""
ROWS = "octogen.rows"
"""The file metadata that says how many rows it has."""
ROWS_PER_PRODUCT = "octogen.rows_per_product"
"""The file metadata of whole catalogs that says how many rows came for a product of the source."""

ANY = object()
"""Stands for any version of a file."""

Metric = str | int | float | bool | datetime | dict[str, object]
Metrics = dict[str, Metric]
"""Figures of a read by name, as plain values."""


TimeWindow = tuple[datetime, datetime]
"""The time that a snapshot is of: its beginning, inclusive, and its end, exclusive."""


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def is_within(window: TimeWindow, moment: datetime) -> bool:
    return window[0] <= moment < window[1]


class SnapshotTarget(Protocol):
    """The place where a snapshot will be stored."""

    def page_store(self, clock: Callable[[], datetime]) -> PageStore | None:
        """Return the page store beside the snapshot; None to save no pages."""

    def latest(self) -> pl.LazyFrame | None:
        """Return the present snapshot, else the latest of an earlier time; None without any."""

    def latest_metadata(self) -> Mapping[str, str]:
        """Return the file metadata of what `latest` returns; empty without a usable one."""

    def version(self) -> object:
        """Return a value that no other file at the place has; None without a file."""

    def log(self, line: str) -> None:
        """Log a line for the user."""

    def warn(self, line: str) -> None:
        """Log a line for the user as a warning."""


@dataclass(frozen=True)
class Limits:
    """How a snapshot is written, and when it replaces the one before.

    `min_rows_fraction` is the smallest number of rows to publish, as a share of the rows of the
    snapshot that is replaced; with 0 any number is published, and otherwise at least one.
    """

    row_group_size: int = ROW_GROUP_SIZE  # so many rows are held in memory
    keeps_previous: bool = False
    min_rows_fraction: float = 0.0
    shrinking_causes: str = ""  # of a snapshot that is smaller, for the error message


@dataclass(frozen=True)
class Outcome:
    """What an execution says of itself when it has ended."""

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


class SnapshotSource(Protocol):
    """What can be stored as a snapshot, besides a plain frame."""

    @property
    def spending(self) -> Spending | None:
        """What the reading counts its costs in; None if it costs nothing."""

    def reading(
        self, target: SnapshotTarget, stop: threading.Event
    ) -> AbstractContextManager[Reading]:
        """Let the block execute and store a frame for a target.

        `stop` ends the execution, which raises where it runs.
        """


class FrameSource:
    """A plain frame as a source."""

    spending = None

    def __init__(self, frame: pl.LazyFrame) -> None:
        self._frame = frame

    @contextlib.contextmanager
    def reading(self, _target: SnapshotTarget, _stop: threading.Event) -> Iterator[Reading]:
        yield Reading(self._frame)


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
    ratio = limits.min_rows_fraction
    if not ratio or rows >= max(1, ratio * replaced):
        return
    there = f", and the latest snapshot has {replaced:,}" if replaced else ""
    raise OctogenShrunkenSnapshotError(
        f"The snapshot {uri} was not published: the service sent {rows or 'no'} products{there} "
        f"(min_rows_fraction is {ratio:g}). Nothing was changed. Likely causes: "
        f"{limits.shrinking_causes}. If the number is right, accept it for one run with "
        "`accept_shrinking: true` in the launchpad; min_rows_fraction of the asset or of the scan "
        "sets the limit for all runs."
    )
