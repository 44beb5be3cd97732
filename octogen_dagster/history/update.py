"""HistoryUpdate: add missing snapshots to a history."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.columns import TIME
from octogen_dagster.frames.source import FETCHED_AT, STORED_AT, Outcome, Reading, SnapshotTarget
from octogen_dagster.frames.stored import StoredSnapshot
from octogen_dagster.history.observed import (
    OBSERVED,
    RUN_ID,
    Contents,
    LeftOut,
    Observation,
    Observed,
    digest_of,
    observation_of,
)
from octogen_dagster.history.table import put_in, take_out
from octogen_dagster.history.tracking import PRODUCTS, Tracking, UnfitSnapshotError, fitted
from octogen_dagster.io_source import Query, check, collect_batches, io_source, until_stopped
from octogen_dagster.storage.store import ROW_GROUP_SIZE, DamagedError

_NEEDED = ("catalog_key", "product_url", "current_price")
_TIMES = Tracking((), {}, {"fetched_at": TIME}, of_products=True)
_Step = Callable[[pl.LazyFrame], Iterator[pl.DataFrame]]
"""A function that adds or removes one snapshot and yields the history's rows."""


class HistoryUpdate:
    """A snapshot source that adds missing snapshots to the history stored in the target."""

    spending = None

    def __init__(
        self,
        snapshots: Iterable[StoredSnapshot],
        tracking: Tracking = PRODUCTS,
        remove_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """`remove_waiting` is called after the history is published.

        `remove_waiting` deletes the snapshots that were kept for this run.
        """
        self._snapshots = snapshots
        self._tracking = tracking
        self._remove_waiting = remove_waiting

    @contextlib.contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Yield a `Reading` that contains the updated history."""
        version, before = target.version(), target.latest_metadata()
        stored, contents = _existing(target, before), Contents.read(before)
        tracking = self._tracking
        if stored is not None:
            tracking = tracking.going_on(Tracking.read(before, stored))
        steps, tracking = self._steps(contents, tracking, stored, target, stop)
        empty = pl.LazyFrame(schema=tracking.schema)
        history = empty if stored is None else fitted(stored, tracking.schema)

        def frames(_query: Query, stop: threading.Event) -> Iterator[pl.DataFrame]:
            return until_stopped(_after(history, steps, tracking, stop), stop)

        outcome = Outcome(file_metadata={**contents.metadata(), **tracking.metadata()})
        frame = io_source(tracking.schema, frames, stop)
        yield Reading(frame, lambda: outcome, replaces=version, published=self._remove_waiting)

    def _steps(
        self,
        contents: Contents,
        tracking: Tracking,
        history: pl.LazyFrame | None,
        target: SnapshotTarget,
        stop: threading.Event,
    ) -> tuple[list[_Step], Tracking]:
        """Return a pair: the steps that update a history, and the updated history's `Tracking`."""
        unseen: dict[datetime, tuple[StoredSnapshot, Observation]] = {}
        seen, partitions, left_out = set[datetime](), set[str](), list[LeftOut]()
        lacking = dict.fromkeys(contents.observed, contents.lacking)

        def kept() -> Iterator[pl.LazyFrame]:
            if history is not None:
                yield history
            for each, _ in unseen.values():
                yield each.open()[0]

        for snapshot in self._snapshots:
            check(stop)
            if snapshot.name:
                if contents.versions.get(snapshot.name) == snapshot.version:
                    continue
                # Recorded before the file is opened, so the next run reads a later replacement.
                contents.versions[snapshot.name] = snapshot.version
                partitions.add(snapshot.name)
            at = None
            try:
                stored, file_metadata = snapshot.open()
                at = _time_of(stored, file_metadata, tracking)
                fitting = tracking.with_types(stored, file_metadata, kept)
                rows = fitting.rows(stored)
                is_known = _is_known(at, rows, file_metadata, contents, fitting)
                if at is None or at in seen or is_known:
                    continue
                lacks = fitting.lacking(stored)
                if tracking.of_products:
                    _refuse_lost(lacks, lacking.values())
                # Keep no frame here: each holds an open file, and there can be thousands.
                observation = observation_of(rows, file_metadata, fitting)
                unseen[at] = snapshot, observation._replace(partition=snapshot.name)
                tracking, lacking[at] = fitting, lacks
            except (UnfitSnapshotError, DamagedError) as error:
                # A snapshot removed with forget_snapshot is not reported again.
                if at not in contents.forgotten:
                    left_out.append(LeftOut(at, snapshot.name, str(error)))
                    target.warn(f"{left_out[-1].name} is left out of the history. {error}")
            else:
                target.log(f"Adding the snapshot from {at:%Y-%m-%d %H:%M:%S} UTC to the history.")
            finally:
                seen |= {at} if at else set()
        contents.left_out = [
            *(each for each in contents.left_out if not each.is_of(seen, partitions)),
            *left_out,
        ]
        contents.lacking = lacking[max(lacking)] if lacking else ()
        steps = _planned(unseen, contents, tracking)
        if left_out and not contents.observed:  # never start a history without snapshots
            raise UnfitSnapshotError(left_out[0].reason)
        return steps, tracking


def _planned(
    unseen: Mapping[datetime, tuple[StoredSnapshot, Observation]],
    contents: Contents,
    tracking: Tracking,
) -> list[_Step]:
    """Return the steps that add new snapshots. Add the new snapshots to `contents`."""
    # Steps run later, so each step gets a copy of the list of snapshots.
    steps, observed = list[_Step](), contents.observed
    for at in sorted(unseen.keys() & observed.keys()):  # replaced by a new version
        before = {**observed}
        steps.append(functools.partial(take_out, at=at, observed=before, tracking=tracking))
        del observed[at]
    for at, (snapshot, observation) in sorted(unseen.items()):
        observed[at] = observation
        steps.append(functools.partial(_put_in, snapshot, at, {**observed}, tracking))
        contents.forgotten.pop(at, None)
    return steps


def _refuse_lost(lacks: Collection[str], before: Iterable[Collection[str]]) -> None:
    """Raise an error if a snapshot's linked view no longer has a required column.

    If the catalog were missing, each product would get a new key. If the price were missing, each
    price would count as changed to null.
    """
    for name in _NEEDED:
        if name in lacks and any(name not in each for each in before):
            raise UnfitSnapshotError(
                f"The linked view no longer has the column {name}, which the history requires. "
                "Include the column in the linked snapshot again. If Octogen no longer shares the "
                "column, move the history file to another folder to start a new history."
            )


def _existing(target: SnapshotTarget, file_metadata: Mapping[str, str]) -> pl.LazyFrame | None:
    try:
        history = target.latest()
    except DamagedError as error:
        raise UnfitSnapshotError(
            f"The history {error.uri} is damaged ({error.cause}). Restore the file from a backup. "
            "To start a new history without the past changes, move the file to another folder."
        ) from error
    if history is not None and OBSERVED not in file_metadata:
        raise OctogenSnapshotError(
            "The file stored for this history does not list the history's snapshots, so no "
            "snapshot can be added. If the storage was unreachable, run the asset again. If the "
            "file is not a history, move it to another folder to start a new history."
        )
    return history


def _time_of(
    stored: pl.LazyFrame, file_metadata: Mapping[str, str], tracking: Tracking
) -> datetime | None:
    """Return the time when a snapshot was read or, if that is unknown, when it was stored.

    Return None for an empty product snapshot.
    """
    at = file_metadata.get(FETCHED_AT)
    if "fetched_at" not in stored.collect_schema():
        at = at or file_metadata.get(STORED_AT)
    if at is not None:
        return datetime.fromisoformat(at)
    times = _TIMES.with_types(stored, {}).rows(stored)
    last = times.select(pl.len(), pl.col("fetched_at").max())
    height, found = last.collect(engine="streaming").row(0)
    if found is None and not tracking.of_products and STORED_AT in file_metadata:
        return datetime.fromisoformat(file_metadata[STORED_AT])
    if height and found is None:
        raise UnfitSnapshotError(
            f"fetched_at is null in all {height:,} rows, so the time of the snapshot is unknown. "
            "Set fetched_at before you store the snapshot."
        )
    return found  # type: ignore[no-any-return]


def _is_known(
    at: datetime | None,
    rows: pl.LazyFrame,
    file_metadata: Mapping[str, str],
    contents: Contents,
    tracking: Tracking,
) -> bool:
    """Return True if this version of the snapshot was already added or removed."""
    if at in contents.observed:
        run_id = contents.observed[at].run_id
        return run_id != "" and run_id == file_metadata.get(RUN_ID)
    return at in contents.forgotten and contents.forgotten[at] == digest_of(rows, tracking)


def _put_in(
    snapshot: StoredSnapshot,
    at: datetime,
    observed: Observed,
    tracking: Tracking,
    history: pl.LazyFrame,
) -> Iterator[pl.DataFrame]:
    stored, file_metadata = snapshot.open()
    if _time_of(stored, file_metadata, tracking) != at:
        raise OctogenSnapshotError(
            f"The snapshot from {at:%Y-%m-%d %H:%M:%S} UTC was replaced while the run was adding "
            "it. The history is unchanged. Run the asset again."
        )
    return put_in(history, tracking.rows(stored), at, observed, tracking)


def _after(
    history: pl.LazyFrame, steps: Sequence[_Step], tracking: Tracking, stop: threading.Event
) -> Iterator[pl.DataFrame]:
    """Run the steps in order and yield the updated rows of the history."""
    if not steps:
        yield from collect_batches(history, engine="streaming")
        return
    *earlier, last = steps
    for step in earlier:
        check(stop)
        # The frame is executed before the next iteration rebinds `step` and `history`.
        rows = io_source(tracking.schema, lambda *_: until_stopped(step(history), stop))  # noqa: B023
        # An unnamed file leaves nothing behind if the run is killed; it closes with its frame.
        file = tempfile.TemporaryFile()  # noqa: SIM115
        rows.sink_parquet(
            file, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_SIZE
        )
        file.seek(0)  # Polars reads from the current position
        history = pl.scan_parquet(file, glob=False)
    check(stop)
    yield from last(history)
