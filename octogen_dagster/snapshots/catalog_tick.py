"""The decisions of a catalog sensor's tick, as a pure function of its cursor and its inputs."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

import msgspec
from typing_extensions import Self

from octogen_dagster.api.catalog_states import CatalogList
from octogen_dagster.run_ledger import Ledger, run_key
from octogen_dagster.sensor_limits import limited
from octogen_dagster.snapshots.partitions import keys_by_catalog

MAX_CONFIRMATIONS_PER_TICK = 400
"""Unconfirmed snapshots that a tick looks up."""

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


class CatalogCursor(Ledger[datetime | None], kw_only=True):
    """The ledger of the catalog sensor; its keys are the partition keys of catalogs.

    Attributes:
        stamp_regressions: How often the time of a catalog went back, for catalogs where it
            did. It makes run keys new that would otherwise repeat.
    """

    stamp_regressions: dict[str, int] = msgspec.field(default_factory=dict)

    def copy(self) -> Self:
        """An independent copy."""
        copied = super().copy()
        copied.stamp_regressions = dict(self.stamp_regressions)
        return copied


@dataclass(frozen=True, slots=True)
class TickInputs:
    """What a tick may look up in Dagster. Each function is called only when its answer matters.

    Attributes:
        known: Returns the partition keys of catalogs that exist.
        latest_materializations: Takes partitions of the asset and returns the storage id of the
            latest materialization of each that has one.
        unfinished: Returns the partitions of the sensor's runs that are queued or running.
        partition_of: Returns the present partition of a catalog's partition key.
        now: Seconds since 1970.
    """

    known: Callable[[], Collection[str]]
    latest_materializations: Callable[[Collection[str]], Mapping[str, int | None]]
    unfinished: Callable[[], Collection[str]]
    partition_of: Callable[[str], str]
    now: int


@dataclass(frozen=True, slots=True)
class CatalogTick:
    """The result of one tick.

    Attributes:
        new: Partition keys to add.
        runs: The partition and the run key of each run to request.
        waiting: Number of snapshots that are due and left to the next ticks.
        gone: Partition keys to report as no longer listed.
        skipped: For each catalog that cannot have a partition, which one it is and why.
        cursor: The cursor to store.
    """

    new: list[str]
    runs: list[tuple[str, str]]
    waiting: int
    gone: list[str]
    skipped: list[str]
    cursor: CatalogCursor = field(repr=False)


def plan_tick(cursor: CatalogCursor, listed: CatalogList, inputs: TickInputs) -> CatalogTick:
    """Decide what a tick requests, adds and reports. Equal arguments give equal results.

    Args:
        cursor: The cursor of the last tick. It is not changed.
        listed: The catalogs that there are now. While the list is incomplete, none is reported as
            gone.
        inputs: What the tick may look up.
    """
    keys, skipped = keys_by_catalog(state.catalog for state in listed.catalogs)
    ledger = cursor.copy()
    # A catalog whose time is not known at the moment, or that has none, has not moved. Of a new
    # one without products nothing could be published.
    stamps = {
        key: state.changed_at or ledger.requested.get(key)
        for state in listed.catalogs
        if (key := keys.get(state.catalog)) is not None
        and (key in ledger.requested or state.product_count != 0)
    }
    retries = _confirm_snapshots(ledger, stamps, inputs)
    due = [key for key, stamp in stamps.items() if key in retries or _moved(ledger, key, stamp)]
    due.sort(key=lambda key: _urgency(ledger, key, stamps[key]))
    new, allowed = limited(due, inputs.known() if due else ())
    runs = _request_runs(ledger, {key: stamps[key] for key in allowed}, inputs) if allowed else []
    return CatalogTick(
        new=sorted(new),
        runs=runs,
        waiting=len(due) - len(runs),
        gone=ledger.report_gone(stamps.keys()) if listed.is_complete else [],
        skipped=skipped,
        cursor=ledger,
    )


def _confirm_snapshots(
    ledger: CatalogCursor, granted: Collection[str], inputs: TickInputs
) -> set[str]:
    """Confirm the overdue runs whose snapshot exists; return the keys to request again.

    A key whose run is queued or running is neither confirmed nor requested again.
    """
    overdue = _overdue_partitions(ledger, granted, inputs)
    if not overdue:
        return set()
    latest = inputs.latest_materializations(set().union(*overdue.values()))
    missing = {}
    for key, partitions in overdue.items():
        newest = max(latest.get(partition) or 0 for partition in partitions)
        if newest > ledger.unconfirmed[key].after:
            ledger.confirm(key)
        else:
            missing[key] = partitions
    unfinished = set(inputs.unfinished()) if missing else set()
    return {key for key, partitions in missing.items() if not partitions & unfinished}


def _overdue_partitions(
    ledger: CatalogCursor, granted: Collection[str], inputs: TickInputs
) -> dict[str, set[str]]:
    """The partitions in which the snapshot of each overdue key may be.

    It may be in the requested partition or, once that day is over, in the present one.
    """
    overdue = [key for key in ledger.overdue(inputs.now) if key in granted]
    return {
        key: {ledger.unconfirmed[key].partition or key, inputs.partition_of(key)}
        for key in overdue[:MAX_CONFIRMATIONS_PER_TICK]
    }


def _moved(ledger: CatalogCursor, key: str, stamp: datetime | None) -> bool:
    """True if no snapshot was requested for this time."""
    return key not in ledger.requested or ledger.requested[key] != stamp


def _urgency(ledger: CatalogCursor, key: str, stamp: datetime | None) -> tuple[bool, float, str]:
    """The sort key of a due catalog.

    Catalogs that were never requested come first, the newest before all. Then comes who waits
    longest, so that catalogs that change all the time starve no other.
    """
    known = key in ledger.requested
    seconds = stamp.timestamp() if stamp else 0.0
    return known, seconds if known else -seconds, key


def _request_runs(
    ledger: CatalogCursor, stamps: Mapping[str, datetime | None], inputs: TickInputs
) -> list[tuple[str, str]]:
    """Record a run for each key; return its partition and its run key."""
    partitions = {key: inputs.partition_of(key) for key in stamps}
    latest = inputs.latest_materializations(set(partitions.values()))
    runs = []
    for key, stamp in stamps.items():
        partition = partitions[key]
        if (ledger.requested.get(key) or _NEVER) > (stamp or _NEVER):
            ledger.stamp_regressions[key] = ledger.stamp_regressions.get(key, 0) + 1
        # After a reset nobody knows which run was requested last: any snapshot confirms it.
        after = latest.get(partition) or 0 if key in ledger.requested else 0
        attempt = ledger.request(
            key,
            stamp,
            now=inputs.now,
            new_round=_moved(ledger, key, stamp),
            after=after,
            partition=partition,
        )
        regressions = ledger.stamp_regressions.get(key, 0)
        runs.append((partition, _run_key(key, stamp, regressions, attempt.attempts)))
    return runs


def _run_key(key: str, stamp: datetime | None, regressions: int, attempts: int) -> str:
    origin = stamp.astimezone(timezone.utc).isoformat() if stamp else ""
    return run_key(key, origin, round_number=regressions, attempts=attempts)
