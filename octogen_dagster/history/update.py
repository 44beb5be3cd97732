"""The update of a history by the snapshots that are not in it."""

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
"""Yields the rows of a history with a snapshot put in or taken out."""


class HistoryUpdate:
    """A source: the history that is in a target, with the snapshots put in that are not in it."""

    spending = None

    def __init__(
        self,
        snapshots: Iterable[StoredSnapshot],
        tracking: Tracking = PRODUCTS,
        remove_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """`remove_waiting` removes snapshots that the history has once it is reported."""
        self._snapshots = snapshots
        self._tracking = tracking
        self._remove_waiting = remove_waiting

    @contextlib.contextmanager
    def reading(self, target: SnapshotTarget, stop: threading.Event) -> Iterator[Reading]:
        """Let the block store the history in its target."""
        version, before = target.version(), target.latest_metadata()
        stored, contents = _existing(target, before), Contents.read(before)
        tracking = self._tracking
        if stored is not None:
            tracking = tracking.going_on(Tracking.read(before, stored))
        steps, tracking = self._steps(contents, tracking, stored, target, stop)
        nothing = pl.LazyFrame(schema=tracking.schema)
        history = nothing if stored is None else fitted(stored, tracking.schema)

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
        """Return what is to be done with a history, and the types of its columns then."""
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
                # It is from before the file is opened: one that replaces it then is read next time.
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
                # Not its frame: a frame keeps its file open, and there may be thousands.
                observation = observation_of(rows, file_metadata, fitting)
                unseen[at] = snapshot, observation._replace(partition=snapshot.name)
                tracking, lacking[at] = fitting, lacks
            except (UnfitSnapshotError, DamagedError) as error:
                # Somebody had it forgotten, so it is not told again.
                if at not in contents.forgotten:
                    left_out.append(LeftOut(at, snapshot.name, str(error)))
                    target.warn(f"{left_out[-1].name} is left out of the history. {error}")
            else:
                target.log(f"The snapshot of {at:%Y-%m-%d %H:%M:%S} UTC is put into the history.")
            finally:
                seen |= {at} if at else set()
        contents.left_out = [
            *(each for each in contents.left_out if not each.is_of(seen, partitions)),
            *left_out,
        ]
        contents.lacking = lacking[max(lacking)] if lacking else ()
        # Each step gets a copy of what is in the history then: it is executed when all are known.
        steps, observed = list[_Step](), contents.observed
        for at in sorted(unseen.keys() & observed.keys()):  # of which it has another version
            before = {**observed}
            steps.append(functools.partial(take_out, at=at, observed=before, tracking=tracking))
            del observed[at]
        for at, (snapshot, observation) in sorted(unseen.items()):
            observed[at] = observation
            steps.append(functools.partial(_put_in, snapshot, at, {**observed}, tracking))
            contents.forgotten.pop(at, None)
        if left_out and not observed:  # no history begins with what cannot be in one
            raise UnfitSnapshotError(left_out[0].reason)
        return steps, tracking


def _refuse_lost(lacks: Collection[str], before: Iterable[Collection[str]]) -> None:
    """Refuse a snapshot of a linked view that lost a column without which a history says nothing.

    Each product would be another one without its catalog, and a price that is not shown is no null.
    """
    for name in _NEEDED:
        if name in lacks and any(name not in each for each in before):
            raise UnfitSnapshotError(
                f"The view has no column {name} any more, so the snapshot has no place in a "
                "history that has it. Read the column again, or if Octogen no longer shares it, "
                "move the file of the history away to begin one without it."
            )


def _existing(target: SnapshotTarget, file_metadata: Mapping[str, str]) -> pl.LazyFrame | None:
    try:
        history = target.latest()
    except DamagedError as error:
        raise UnfitSnapshotError(
            f"The history {error.uri} is damaged ({error.cause}), and a new one would lack the "
            "past. Restore the file from a backup, or move it away to begin anew."
        ) from error
    if history is not None and OBSERVED not in file_metadata:
        raise OctogenSnapshotError(
            "The file at the place of the history does not say which snapshots are in it, so none "
            "can be put in. Run it again if the store was not in reach. If the file is not a "
            "history, move it away to begin one."
        )
    return history


def _time_of(
    stored: pl.LazyFrame, file_metadata: Mapping[str, str], tracking: Tracking
) -> datetime | None:
    """Return when a snapshot was read, or when it was stored if it says no other time.

    Without rows, one of products may not say when.
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
            "A snapshot of products does not say when it was read: fetched_at is null in all "
            f"{height:,} rows. Give fetched_at the time of the snapshot before you store it."
        )
    return found  # type: ignore[no-any-return]


def _is_known(
    at: datetime | None,
    rows: pl.LazyFrame,
    file_metadata: Mapping[str, str],
    contents: Contents,
    tracking: Tracking,
) -> bool:
    """True if a history has a snapshot as it was published, or has forgotten what is in it."""
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
            f"The snapshot of {at:%Y-%m-%d %H:%M:%S} UTC was replaced while it was put into the "
            "history. Nothing was changed; run it again."
        )
    return put_in(history, tracking.rows(stored), at, observed, tracking)


def _after(
    history: pl.LazyFrame, steps: Sequence[_Step], tracking: Tracking, stop: threading.Event
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a history after steps, of which each reads what the one before wrote."""
    if not steps:
        yield from collect_batches(history, engine="streaming")
        return
    *earlier, last = steps
    for step in earlier:
        check(stop)
        # It is executed before the loop goes on, so it sees this step and this history.
        rows = io_source(tracking.schema, lambda *_: until_stopped(step(history), stop))  # noqa: B023
        # It has no name that a killed run could leave, and ends with the frame that reads it.
        file = tempfile.TemporaryFile()  # noqa: SIM115
        rows.sink_parquet(
            file, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_SIZE
        )
        file.seek(0)  # Polars reads from where the file is
        history = pl.scan_parquet(file, glob=False)
    check(stop)
    yield from last(history)
