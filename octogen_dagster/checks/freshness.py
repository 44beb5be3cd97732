"""The check `fresh`: every catalog was materialized lately, or nothing changed since it was."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, runtime_checkable

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import FRESH, Metadata, hours
from octogen_dagster.assets.latest import CHANGED_TAG, latest_ids
from octogen_dagster.errors import OctogenError
from octogen_dagster.frames.markdown import markdown_table
from octogen_dagster.snapshots.partitions import PartitionLayout, keys_by_catalog
from octogen_dagster.snapshots.publication import last_records, read_last, tags_of
from octogen_dagster.snapshots.range_checks import ASSET_CHECKS

_ADVICE = "Look at the last runs, and at the sensor or schedule that requests them."
_MAX_STALE_SHOWN = 20
_EVERY_HOUR = "0 * * * *"


@runtime_checkable
class ListsCatalogs(Protocol):
    """An `OctogenResource`, which is not imported for this."""

    def listed_product_counts(self) -> Mapping[str, int | None] | None:
        """The products of each catalog that the source lists; None if the list is not whole."""


def build_fresh_check(
    asset: dg.AssetsDefinition,
    max_age: timedelta,
    severity: dg.AssetCheckSeverity,
    clock: Callable[[], datetime],
) -> dg.AssetChecksDefinition:
    """Build the check `fresh`, which reads no snapshot and never blocks.

    A `dagster.FreshnessPolicy` looks at the last materialization of an asset, whichever partition
    that was, so one catalog that is alive keeps it satisfied.
    """
    key, partitions = asset.key, PartitionLayout(asset.partitions_def)
    every_hour: Any = dg.AutomationCondition.cron_tick_passed(_EVERY_HOUR)
    every = "Every catalog" if partitions.catalogs else "It"
    lately = f"in the last {hours(max_age):g} hours"
    resources: set[str] = set()
    if partitions.catalogs and asset.is_executable:
        resources = set(asset.op.required_resource_keys)  # one of them may be Octogen's
    # What is read from a service changes without anything upstream.
    is_derived = asset.is_executable and not (
        asset.op.required_resource_keys - {each.input_manager_key for each in asset.op.input_defs}
    )
    upstream = asset.asset_deps[key] - {key} if is_derived and not partitions.times else set()

    def result(
        context: dg.AssetCheckExecutionContext | dg.AssetExecutionContext,
    ) -> dg.AssetCheckResult:
        now = clock()
        last = _Last(context.instance, key, partitions, now - max_age)
        if last.stale:
            last.compare(_listed(context, resources))
            last.leave_out_unchanged(context.instance, key, upstream)
        metadata = {**_figures(last), "octogen/max_age_hours": hours(max_age)}
        if last.stale:
            sample = _longest_stale(context.instance, key, last.stale, now)
            metadata["octogen/sample"] = dg.MetadataValue.md(markdown_table(sample))
        sentences = [_materialized(key.to_user_string(), last, lately), *_remarks(last)]
        return dg.AssetCheckResult(
            passed=not last.stale,
            severity=severity,
            description=" ".join(sentences),
            metadata=metadata,
        )

    @dg.asset_check(
        asset=key,
        name=FRESH,
        description=f"{every} was materialized {lately}.",
        automation_condition=every_hour & ~dg.AutomationCondition.in_progress(),
        # Definitions do not have the resources that the asset brings itself.
        required_resource_keys=resources - set(asset.resource_defs),
        resource_defs=dict(asset.resource_defs) if resources else {},
    )
    def fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return result(context)

    ASSET_CHECKS[fresh.node_def] = result
    return fresh


class _Last:
    """The last materializations of an asset's parts: its catalogs, or the whole asset, as None.

    Attributes:
        parts: All parts.
        fresh: The number of those that were materialized since a time.
        awaited: The number of those without a snapshot while the asset's first one is not older:
            a first backfill may last.
        stale: The others, each with the storage id of its last materialization or 0.
        withdrawn: Those of the others that the source no longer lists, and so are not stale.
        unchanged: How many of them are made from what has not changed since, and so are not stale.
        ignores_list: True if the source's list is taken for broken.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        asset: dg.AssetKey,
        partitions: PartitionLayout,
        cutoff: datetime,
    ) -> None:
        before = dg.AssetRecordsFilter(asset, before_timestamp=cutoff.timestamp())
        old = instance.fetch_materializations(before, limit=1).records
        cutoff_id = old[0].storage_id if old else 0
        newest: dict[str | None, int] = dict.fromkeys(_parts(instance, partitions), 0)
        fresh = set()
        for partition, storage_id in _last_ids(instance, asset, partitions).items():
            part = None if partition is None else partitions.catalog_key(partition)
            if part not in newest:  # the partition was deleted
                continue
            newest[part] = max(newest[part], storage_id)
            window = None if partition is None else partitions.window(partition)
            # A snapshot of a time that had ended says nothing about the present.
            if storage_id > cutoff_id and (window is None or window[1] > cutoff):
                fresh.add(part)
        is_new = bool(fresh) and not cutoff_id
        late = {part: at for part, at in newest.items() if part not in fresh}
        self.parts, self.fresh = newest.keys(), len(fresh)
        self.stale = {part: at for part, at in late.items() if at or not is_new}
        self.awaited = len(late) - len(self.stale)
        self.withdrawn = set[str | None]()
        self.unchanged = 0
        self.ignores_list = False

    def compare(self, listed: Mapping[str | None, int | None] | None) -> None:
        """Take from the stale parts those that are not listed, or for which nothing is published.

        A list with none of the parts is ignored: all would count as withdrawn.
        """
        if listed is None:
            return
        self.ignores_list = listed.keys().isdisjoint(self.parts)
        if not self.ignores_list:
            self.withdrawn = self.stale.keys() - listed.keys()
        self.stale = {
            part: at
            for part, at in self.stale.items()
            if part not in self.withdrawn and (at or listed.get(part) != 0)
        }

    def leave_out_unchanged(
        self, instance: dg.DagsterInstance, asset: dg.AssetKey, upstream: Collection[dg.AssetKey]
    ) -> None:
        """Take from the stale parts those that are made from what has not changed since."""
        made = _read_at(instance, asset, self.stale) if upstream else {}
        for key in upstream:
            changed = _changed_at(instance, key, made)
            made = {part: at for part, at in made.items() if changed[part] <= at}
        self.unchanged = len(made)
        self.stale = {part: at for part, at in self.stale.items() if part not in made}

    @property
    def never(self) -> int:
        """The number of stale parts that were never materialized."""
        return sum(not storage_id for storage_id in self.stale.values())


def _figures(last: _Last) -> Metadata:
    metadata: Metadata = {
        "octogen/fresh": last.fresh,
        "octogen/stale": len(last.stale),
        "octogen/never_materialized": last.never,
        "octogen/awaited": last.awaited,
        "octogen/withdrawn": len(last.withdrawn),
    }
    if last.unchanged:
        metadata["octogen/unchanged"] = last.unchanged
    if last.withdrawn:
        names = dg.MetadataValue.json(sorted(map(str, last.withdrawn))[:_MAX_STALE_SHOWN])
        metadata["octogen/withdrawn_catalogs"] = names
    return metadata


def _materialized(subject: str, last: _Last, lately: str) -> str:
    if None in last.stale:
        return f"{subject} was not materialized {lately}. {_ADVICE}"
    if last.stale:
        return (
            f"{subject}: {len(last.stale):,} of {len(last.parts):,} catalogs were not "
            f"materialized {lately}, {last.never:,} of them never. {_ADVICE}"
        )
    if None in last.parts and last.unchanged:
        return f"{subject} is made from what has not changed since."
    if None in last.parts:
        return f"{subject} was materialized {lately}."
    expected = last.fresh + last.unchanged
    return (
        f"{subject}: {last.fresh:,} of {expected:,} expected catalogs were materialized {lately}."
    )


def _remarks(last: _Last) -> Iterator[str]:
    """The rest of the text, on a list that is ignored and on catalogs that fail nothing."""
    if last.ignores_list:
        yield (
            "The source lists none of these catalogs, so its answer is ignored. If they have "
            "all ended, delete their partitions; if not, look at the source."
        )
    if last.awaited:
        yield (
            f"Catalogs without a snapshot so far: {last.awaited:,}. They fail this check once "
            "the asset's oldest snapshot is older than that."
        )
    if last.unchanged and None not in last.parts:
        yield f"Catalogs that are made from what has not changed since: {last.unchanged:,}."
    if last.withdrawn:
        yield (
            f"Catalogs that are no longer listed: {len(last.withdrawn):,}. Their snapshots are "
            "kept, and they fail nothing."
        )


def _parts(instance: dg.DagsterInstance, partitions: PartitionLayout) -> Iterable[str | None]:
    if partitions.catalogs is None:
        return [None]
    return partitions.catalogs.get_partition_keys(dynamic_partitions_store=instance)


def _last_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: PartitionLayout
) -> Mapping[str | None, int]:
    """The storage id of the last materialization of each partition, or of the asset as a whole."""
    if partitions.catalogs is None and partitions.times is None:
        records = instance.fetch_materializations(asset, limit=1).records
        return dict.fromkeys([None], records[0].storage_id) if records else {}
    return dict(latest_ids(instance, asset).items())


def _listed(
    context: dg.AssetCheckExecutionContext | dg.AssetExecutionContext, resources: Iterable[str]
) -> dict[str | None, int | None] | None:
    """The products of each partition key that the source lists; None if nobody knows the list."""
    for octogen in (getattr(context.resources, name) for name in resources):
        if not isinstance(octogen, ListsCatalogs):
            continue
        try:
            listed = octogen.listed_product_counts()
        except OctogenError as error:
            context.log.warning(f"Whether stale catalogs are still listed is not known. {error}")
            return None
        if listed is not None:
            keys, _ = keys_by_catalog(listed)
            return {keys[catalog]: listed[catalog] for catalog in keys}
    return None


def _read_at(
    instance: dg.DagsterInstance, asset: dg.AssetKey, parts: Collection[str | None]
) -> dict[str | None, float]:
    """When the steps began that made parts last, without those that have none."""
    records: Mapping[Any, dg.EventLogRecord]
    if None in parts:
        records = dict(zip([None], read_last(instance, asset, None, 1), strict=False))
    else:
        records = last_records(instance, asset, list(map(str, parts)))
    steps = {(each.run_id, each.event_log_entry.step_key) for each in records.values()}
    began: dict[Any, float | None] = {
        (run_id, step): stats.start_time
        for run_id, step in steps
        if run_id and step
        for stats in instance.get_run_step_stats(run_id, [step])
    }
    return {
        part: began.get((each.run_id, each.event_log_entry.step_key)) or each.timestamp
        for part, each in records.items()
    }


def _changed_at(
    instance: dg.DagsterInstance, asset: dg.AssetKey, parts: Collection[str | None]
) -> dict[str | None, float]:
    """When an upstream asset changed last, by part; long ago if it was never materialized."""
    whole = [_time_of_change(record) for record in read_last(instance, asset, None, 1)]
    partitions = list(latest_ids(instance, asset)) if None in parts else list(map(str, parts))
    records = last_records(instance, asset, partitions)
    changed: dict[str | None, float] = {
        partition: _time_of_change(record) for partition, record in records.items()
    }
    if None in parts:
        return {None: max([*changed.values(), *whole], default=-math.inf)}
    # A price list has no catalogs, and is upstream of each.
    return dict.fromkeys(parts, max(whole, default=-math.inf)) | changed


def _time_of_change(record: dg.EventLogRecord) -> float:
    """When a snapshot got its rows, or else when the asset was materialized."""
    return float(tags_of(record).get(CHANGED_TAG, record.timestamp))


def _longest_stale(
    instance: dg.DagsterInstance, asset: dg.AssetKey, stale: Mapping[str | None, int], now: datetime
) -> pl.DataFrame:
    """The parts that wait longest, those that were never materialized first."""
    parts = sorted(stale, key=lambda part: (stale[part], part or ""))[:_MAX_STALE_SHOWN]
    ids = [stale[part] for part in parts if stale[part]]
    wanted = dg.AssetRecordsFilter(asset, storage_ids=ids)
    records = instance.fetch_materializations(wanted, limit=_MAX_STALE_SHOWN).records if ids else []
    times = {each.storage_id: datetime.fromtimestamp(each.timestamp, UTC) for each in records}
    rows = []
    for part in parts:
        time = times.get(stale[part])
        at = "never" if time is None else f"{time:%Y-%m-%d %H:%M} UTC"
        rows.append(
            (part or asset.to_user_string(), at, None if time is None else hours(now - time))
        )
    return pl.DataFrame(rows, schema=["partition", "last materialized", "hours ago"], orient="row")
