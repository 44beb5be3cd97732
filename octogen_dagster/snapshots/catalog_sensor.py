"""The catalog sensor: sees new and re-indexed catalogs, and requests their snapshots."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import msgspec

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.index_runs import IndexRun
from octogen_dagster.errors import OctogenError
from octogen_dagster.sensor_limits import (
    MAX_PARTITIONS_PER_TICK,
    MAX_REPORTS_PER_TICK,
    MAX_RUNS_PER_TICK,
    is_due,
    seconds_to_wait,
    unfinished_partitions,
)
from octogen_dagster.snapshots.partitions import SnapshotPartitions, catalog_partition_key
from octogen_dagster.snapshots.resource import OctogenResource

# Dagster ends a tick after 60 s; the listing must leave it time to store what came of it.
LISTING_TIMEOUT = 30.0
CURSOR_VERSION = 1
_LOOKED_UP = 400  # partitions whose snapshots are looked for in a tick
_NEVER = datetime.min.replace(tzinfo=timezone.utc)


class RunAttempt(msgspec.Struct, array_like=True):
    """A snapshot that was requested and has not been seen yet.

    Attributes:
        partition: The partition it is of.
        tries: Runs requested since the catalog was last indexed; makes run keys and waits grow.
        next_at: When the next one is due if there is no snapshot by then, in seconds since 1970.
        after: Storage id of the partition's materialization before it, 0 for none: a later one is
            the snapshot.
    """

    partition: str
    tries: int
    next_at: int
    after: int = 0


class CatalogCursor(msgspec.Struct, forbid_unknown_fields=True):
    """What the sensor remembers, by the partition keys of catalogs.

    Attributes:
        requested: The `lastIndexedAt` whose snapshot was requested.
        gone: Those that were reported as no longer granted.
        unseen: Snapshots that were requested and not seen yet.
        setbacks: How often `lastIndexedAt` went back, where it did; makes run keys new.
        version: Of this structure.
    """

    requested: dict[str, datetime | None]
    gone: set[str] = msgspec.field(default_factory=set)
    unseen: dict[str, RunAttempt] = msgspec.field(default_factory=dict)
    setbacks: dict[str, int] = msgspec.field(default_factory=dict)
    version: int = CURSOR_VERSION

    @classmethod
    def load(cls, text: str | None) -> tuple["CatalogCursor", bool]:
        """The cursor of the last tick, and whether one was there that cannot be read."""
        if not text:
            return cls({}), False
        try:
            cursor = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return cls({}), True
        return (cursor, False) if cursor.version == CURSOR_VERSION else (cls({}), True)

    def dump(self) -> str:
        """The text that Dagster stores."""
        return msgspec.json.encode(self, order="sorted").decode()


@dataclass(frozen=True, slots=True)
class TickInputs:
    """What there is; partitions are looked up only when it matters.

    Attributes:
        known: Gives the partition keys of catalogs that exist.
        materialized: Gives the storage ids of the last materializations of some of the asset's
            partitions, where there is one.
        running: Gives those whose runs are not finished.
        partition: From the partition key of a catalog to its partition of the present.
        now: Seconds since 1970.
    """

    known: Callable[[], Collection[str]]
    materialized: Callable[[Collection[str]], Mapping[str, int | None]]
    running: Callable[[], Collection[str]]
    partition: Callable[[str], str]
    now: int


@dataclass(frozen=True, slots=True)
class CatalogTick:
    """What one tick does.

    Attributes:
        new: Partition keys to add.
        due: Partitions to request, each with its run key.
        waiting: Snapshots that are due and left to the next ticks.
        gone: Partition keys to report as no longer granted.
        unusable: Why catalogs are left out.
        cursor: What to remember.
    """

    new: list[str]
    due: list[tuple[str, str]]
    waiting: int
    gone: list[str]
    unusable: list[str]
    cursor: CatalogCursor = field(repr=False)


def plan_tick(
    cursor: CatalogCursor, catalogs: Sequence[IndexRun], world: TickInputs
) -> CatalogTick:
    """Decide what a tick does; the same answers give the same decisions.

    Args:
        cursor: What was remembered.
        catalogs: Those granted now.
        world: What there is.
    """
    indexed, unusable = _by_key(catalogs)
    requested, setbacks = dict(cursor.requested), dict(cursor.setbacks)
    unseen, missing = _missing(cursor, indexed, world)
    due = [
        key
        for key, at in indexed.items()
        if key not in requested or requested[key] != at or key in missing
    ]
    # Those never requested first, the newest before all; then who waits longest, so that busy
    # catalogs starve nobody.
    due.sort(key=lambda key: _urgency(key, indexed[key], is_new=key not in requested))
    there = set(world.known()) if due else set()
    new = [key for key in due if key not in there][:MAX_PARTITIONS_PER_TICK]
    there.update(new)
    now = [key for key in due if key in there][:MAX_RUNS_PER_TICK]
    partitions = {key: world.partition(key) for key in now}
    latest = world.materialized(set(partitions.values())) if now else {}
    for key, partition in partitions.items():
        before, at = requested.get(key), indexed[key]
        moved = key not in requested or before != at
        if moved and (before or _NEVER) > (at or _NEVER):
            setbacks[key] = setbacks.get(key, 0) + 1
        tries = 1 if moved else unseen[key].tries + 1
        next_at = world.now + seconds_to_wait(tries)
        # Where it is not known what was requested, as after a reset, any snapshot will do.
        after = (latest.get(partition) or 0) if key in requested else 0
        unseen[key] = RunAttempt(partition, tries, next_at, after)
        requested[key] = at
    gone = sorted(requested.keys() - indexed.keys() - cursor.gone)[:MAX_REPORTS_PER_TICK]
    return CatalogTick(
        new=sorted(new),
        due=[
            (
                unseen[key].partition,
                _run_key(key, indexed[key], setbacks.get(key, 0), unseen[key].tries),
            )
            for key in now
        ],
        waiting=len(due) - len(now),
        gone=gone,
        unusable=unusable,
        cursor=CatalogCursor(
            requested=requested,
            gone=(cursor.gone | set(gone)) - indexed.keys(),
            unseen=unseen,
            setbacks=setbacks,
        ),
    )


def _by_key(catalogs: Sequence[IndexRun]) -> tuple[dict[str, datetime | None], list[str]]:
    """When each catalog was indexed, by partition key; and what cannot be a partition, and why."""
    indexed: dict[str, datetime | None] = {}
    unusable = []
    for entry in catalogs:
        try:
            indexed[catalog_partition_key(entry.catalog)] = entry.last_indexed_at
        except ValueError as error:
            unusable.append(f"Catalog {entry.catalog[:60]!r} is left out. {error}")
    return indexed, unusable


def _missing(
    cursor: CatalogCursor, granted: Collection[str], world: TickInputs
) -> tuple[dict[str, RunAttempt], set[str]]:
    """What has not been seen yet, and what of it is to be requested again."""
    unseen = dict(cursor.unseen)
    over = [key for key, ask in unseen.items() if key in granted and is_due(ask.next_at, world.now)]
    if not over:
        return unseen, set()
    places = {key: {unseen[key].partition, world.partition(key)} for key in over[:_LOOKED_UP]}
    latest = world.materialized({place for both in places.values() for place in both})
    seen = {
        key
        for key, both in places.items()
        if any((latest.get(place) or 0) > unseen[key].after for place in both)
    }
    unseen = {key: ask for key, ask in unseen.items() if key not in seen}
    running = set(world.running()) if len(seen) < len(places) else set()
    return unseen, {key for key, both in places.items() if key not in seen and not both & running}


def _urgency(key: str, at: datetime | None, *, is_new: bool) -> tuple[bool, float, str]:
    seconds = at.timestamp() if at else 0.0
    return not is_new, -seconds if is_new else seconds, key


def _run_key(key: str, indexed_at: datetime | None, setbacks: int, tries: int) -> str:
    return "".join(
        [
            f"{key}@",
            indexed_at.astimezone(timezone.utc).isoformat() if indexed_at else "",
            f"~{setbacks}" if setbacks else "",
            f"#{tries}" if tries > 1 else "",
        ]
    )


def build_catalog_sensor(
    products: dg.AssetsDefinition,
    *,
    name: str = "octogen_catalog_sensor",
    minimum_interval_seconds: int = 300,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that snapshots each catalog when it appears and whenever it was indexed again.

    Each tick lists the granted catalogs, adds a partition for each new one, and requests a run for
    each whose `lastIndexedAt` moved, at most 50; the rest follow on the next ticks. A catalog whose
    run brought no snapshot, because it failed, is requested again after 10 minutes, then 20, up to
    6 hours. One that is no longer granted is reported once, as an observation of its partition;
    its data stays. A listing that fails skips the tick with the reason.

    Args:
        products: An asset of `build_products_asset` whose partitions are dynamic ones for
            catalogs, or those and times: then the time is the present.
        name: The sensor's name.
        minimum_interval_seconds: Between two ticks.
        sensor_arguments: Any other argument of `@dagster.sensor`.

    Raises:
        ValueError: The asset has no named dynamic partitions.
    """
    partitions = SnapshotPartitions(products.partitions_def)
    partitions_def = partitions.catalogs
    if not isinstance(partitions_def, dg.DynamicPartitionsDefinition) or not partitions_def.name:
        raise ValueError(
            f"Asset {products.key.to_user_string()!r} must have a DynamicPartitionsDefinition with "
            "a name: catalogs are added to it."
        )
    partitions_name = partitions_def.name

    @dg.sensor(
        name=name,
        target=products,
        minimum_interval_seconds=minimum_interval_seconds,
        **sensor_arguments,
    )
    def catalog_sensor(
        context: dg.SensorEvaluationContext, octogen: OctogenResource
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            catalogs = _list_catalogs(octogen)
        except OctogenError as error:
            return dg.SkipReason(
                f"The catalogs could not be listed, the next tick tries again. {error}"
            )
        cursor, unreadable = CatalogCursor.load(context.cursor)
        if unreadable:
            context.log.warning(
                "The cursor is of another version or damaged: every catalog is looked at anew. "
                "Runs that were requested before are not requested twice."
            )
        now = _now()
        instance = context.instance
        tick = plan_tick(
            cursor,
            catalogs,
            TickInputs(
                known=lambda: instance.get_dynamic_partitions(partitions_name),
                materialized=lambda keys: instance.get_latest_storage_id_by_partition(
                    products.key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(keys)
                ),
                running=lambda: unfinished_partitions(instance, name),
                partition=lambda key: str(partitions.key(key, now)),
                now=int(now.timestamp()),
            ),
        )
        for line in tick.unusable:
            context.log.warning(line)
        for key in tick.gone:
            context.log.warning(f"Catalog {key} is no longer granted. Its snapshots are kept.")
        if tick.waiting:
            context.log.info(f"{tick.waiting} more snapshots are due; the next ticks request them.")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=run_key, partition_key=partition)
                for partition, run_key in tick.due
            ],
            skip_reason=None if tick.due else f"None of {len(catalogs)} catalogs was indexed anew.",
            dynamic_partitions_requests=[partitions_def.build_add_request(tick.new)]
            if tick.new
            else [],
            asset_events=[
                dg.AssetObservation(
                    products.key,
                    partition=partitions.key(key, now),
                    metadata={"octogen/granted": False},
                )
                for key in tick.gone
            ],
            cursor=tick.cursor.dump(),
        )

    return catalog_sensor


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _list_catalogs(octogen: OctogenResource) -> list[IndexRun]:
    connection = octogen.connection()
    deadline = min(connection.retry.deadline, LISTING_TIMEOUT)
    retry = dataclasses.replace(connection.retry, deadline=deadline)
    return dataclasses.replace(connection, retry=retry).call(OctogenClient.list_index_runs)
