"""The check `fresh`: every catalog of an asset was materialized lately.

A `dagster.FreshnessPolicy` looks at the last materialization of an asset, whichever partition that
was, so one catalog that is alive keeps it satisfied.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.dagster_parts import FRESH, Metadata, hours, markdown_table
from octogen_dagster.frames.reading import utc_now
from octogen_dagster.snapshots.partitions import SnapshotPartitions
from octogen_dagster.snapshots.withheld import withheld_catalogs

CRON = "0 * * * *"
_MAX_SAMPLE = 20

_ADVICE = "Look at the last runs, and at the sensor or schedule that requests them."


@dataclass(frozen=True)
class Freshness:
    """When the parts of an asset were last materialized: its catalogs, or the whole asset.

    Attributes:
        fresh: The number of parts that were materialized within the maximum age.
        stale: The other parts, each with the storage id of its last materialization, or 0 if it has
            none. The part of an asset without catalogs is None.
        awaited: The number of parts that have no materialization yet, while the first one of the
            asset is within the maximum age: a first backfill may last.
        withdrawn: Those that are not fresh since their catalog is no longer listed.
    """

    fresh: int
    stale: Mapping[str | None, int]
    awaited: int
    withdrawn: list[str]

    @property
    def parts(self) -> int:
        """The number of all parts."""
        return self.fresh + len(self.stale) + self.awaited + len(self.withdrawn)


def build_fresh_check(
    asset: dg.AssetsDefinition,
    max_age: timedelta,
    severity: dg.AssetCheckSeverity,
    clock: Callable[[], datetime] = utc_now,
) -> dg.AssetChecksDefinition:
    """Build the check `fresh`, which reads no snapshot and never blocks.

    Args:
        asset: The asset.
        max_age: The maximum age of the last materialization of each catalog.
        severity: The severity if it fails.
        clock: Returns the present time, with a time zone.
    """
    partitions = SnapshotPartitions(asset.partitions_def)
    every_hour: Any = dg.AutomationCondition.cron_tick_passed(CRON)
    every = "Every catalog" if partitions.catalogs else "It"

    @dg.asset_check(
        asset=asset.key,
        name=FRESH,
        description=f"{every} was materialized in the last {hours(max_age):g} hours.",
        automation_condition=every_hour & ~dg.AutomationCondition.in_progress(),
    )
    def fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        now = clock()
        freshness = read_freshness(context.instance, asset.key, partitions, now - max_age)
        text, metadata = _described(freshness, asset.key.to_user_string(), max_age)
        if freshness.stale:
            sample = _sample(context.instance, asset.key, freshness.stale, now)
            metadata["octogen/sample"] = dg.MetadataValue.md(markdown_table(sample))
        return dg.AssetCheckResult(
            passed=not freshness.stale, severity=severity, description=text, metadata=metadata
        )

    return fresh


def read_freshness(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    partitions: SnapshotPartitions,
    cutoff: datetime,
) -> Freshness:
    """Read which parts of an asset were materialized since a time, in a few queries.

    A partition whose time had ended by then says nothing about the present.

    Args:
        instance: The instance with the event log.
        asset: The key of the asset.
        partitions: Its partitions.
        cutoff: The time, with a time zone.
    """
    last_old = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, before_timestamp=cutoff.timestamp()), limit=1
    ).records
    cutoff_id = last_old[0].storage_id if last_old else 0
    newest: dict[str | None, int] = dict.fromkeys(_parts(instance, partitions), 0)
    fresh = set()
    for partition, storage_id in _last_ids(instance, asset, partitions).items():
        part = None if partition is None else partitions.catalog_key(partition)
        if part not in newest:  # the partition was deleted
            continue
        newest[part] = max(newest[part], storage_id)
        if storage_id > cutoff_id and _reaches(partitions, partition, cutoff):
            fresh.add(part)
    late = newest.keys() - fresh
    withdrawn = withheld_catalogs(instance, asset, partitions) & late if late else set()
    is_new = bool(fresh) and not cutoff_id
    awaited = {part for part in late - withdrawn if is_new and not newest[part]}
    stale = late - withdrawn - awaited
    return Freshness(
        len(fresh),
        {part: storage_id for part, storage_id in newest.items() if part in stale},
        len(awaited),
        sorted(withdrawn),
    )


def _parts(instance: dg.DagsterInstance, partitions: SnapshotPartitions) -> Iterable[str | None]:
    if partitions.catalogs is None:
        return [None]
    return partitions.catalogs.get_partition_keys(dynamic_partitions_store=instance)


def _last_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: SnapshotPartitions
) -> Mapping[str | None, int]:
    """The storage id of the last materialization of each partition, or of the asset as a whole."""
    if partitions.catalogs is None and partitions.times is None:
        records = instance.fetch_materializations(asset, limit=1).records
        return dict.fromkeys([None], records[0].storage_id) if records else {}
    materialization = dg.DagsterEventType.ASSET_MATERIALIZATION
    return dict(instance.get_latest_storage_id_by_partition(asset, materialization).items())


def _reaches(partitions: SnapshotPartitions, partition: str | None, cutoff: datetime) -> bool:
    """True if the time of a partition ends after another time, or if it has no time."""
    window = None if partition is None else partitions.window(partition)
    return window is None or window[1] > cutoff


def _described(freshness: Freshness, asset: str, max_age: timedelta) -> tuple[str, Metadata]:
    """The freshness of an asset in words and as metadata."""
    stale, withdrawn = freshness.stale, freshness.withdrawn
    never = sum(not storage_id for storage_id in stale.values())
    limit = f"in the last {hours(max_age):g} hours"
    if None in stale:
        text = f"{asset} was not materialized {limit}. {_ADVICE}"
    elif stale:
        text = (
            f"{asset}: {len(stale):,} of {freshness.parts:,} catalogs were not materialized "
            f"{limit}, {never:,} of them never. {_ADVICE} Delete the partition of a catalog that "
            "has ended."
        )
    else:
        text = f"{asset}: all {freshness.fresh:,} that are expected were materialized {limit}."
    metadata: Metadata = {
        "octogen/fresh": freshness.fresh,
        "octogen/stale": len(stale),
        "octogen/never_materialized": never,
        "octogen/awaited": freshness.awaited,
        "octogen/withdrawn": len(withdrawn),
        "octogen/max_age_hours": hours(max_age),
    }
    if freshness.awaited:
        text += (
            f" {freshness.awaited:,} have no snapshot yet. They fail this check when that of the "
            "first catalog is older."
        )
    if withdrawn:
        text += f" {len(withdrawn):,} are no longer listed; their snapshots are kept."
        metadata["octogen/withdrawn_catalogs"] = dg.MetadataValue.json(withdrawn[:_MAX_SAMPLE])
    return text, metadata


def _sample(
    instance: dg.DagsterInstance, asset: dg.AssetKey, stale: Mapping[str | None, int], now: datetime
) -> pl.DataFrame:
    """The parts that wait longest, those that were never materialized first."""
    parts = sorted(stale, key=lambda part: (stale[part], part or ""))[:_MAX_SAMPLE]
    ids = [stale[part] for part in parts if stale[part]]
    found = dg.AssetRecordsFilter(asset, storage_ids=ids)
    records = instance.fetch_materializations(found, limit=_MAX_SAMPLE).records if ids else []
    times = {
        each.storage_id: datetime.fromtimestamp(each.timestamp, timezone.utc) for each in records
    }
    rows = []
    for part in parts:
        time = times.get(stale[part])
        rows.append(
            (
                part or asset.to_user_string(),
                "never" if time is None else f"{time:%Y-%m-%d %H:%M} UTC",
                None if time is None else hours(now - time),
            )
        )
    return pl.DataFrame(rows, schema=["partition", "last materialized", "hours ago"], orient="row")
