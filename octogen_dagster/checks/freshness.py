"""The `fresh` check: every catalog was materialized within the maximum age."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import FRESH, Metadata, hours
from octogen_dagster.assets.latest import latest_id_by_partition
from octogen_dagster.errors import OctogenError
from octogen_dagster.frames.markdown import markdown_table
from octogen_dagster.snapshots.partitions import PartitionLayout, keys_by_catalog
from octogen_dagster.snapshots.range_checks import ASSET_CHECKS

_ADVICE = "Check the latest runs, and the sensor or schedule that requests runs."
_MAX_STALE_SHOWN = 20
_EVERY_HOUR = "0 * * * *"

Part: TypeAlias = str | None
"""A catalog key, or None if the asset has no catalogs."""


@runtime_checkable
class ListsCatalogs(Protocol):  # avoids importing OctogenResource
    """A resource that can list catalogs, such as `OctogenResource`."""

    def listed_product_counts(self) -> Mapping[str, int | None] | None:
        """Return product counts by catalog, or None if some catalogs could not be listed."""


def is_derived(asset: dg.AssetsDefinition) -> bool:
    """Return True if an asset is computed only from other assets, without requests to a service."""
    if not asset.is_executable or not asset.asset_deps[asset.key] - {asset.key}:
        return False
    io_managers = {each.input_manager_key for each in asset.op.input_defs}
    return not asset.op.required_resource_keys - io_managers


def build_fresh_check(
    asset: dg.AssetsDefinition,
    max_age: timedelta,
    severity: dg.AssetCheckSeverity,
    clock: Callable[[], datetime],
) -> dg.AssetChecksDefinition:
    """Build the `fresh` check, which reads no snapshot and never blocks.

    A `dagster.FreshnessPolicy` considers only the latest materialization of the asset, so one fresh
    catalog would hide stale catalogs.
    """
    key, partitions = asset.key, PartitionLayout(asset.partitions_def)
    every_hour: Any = dg.AutomationCondition.cron_tick_passed(_EVERY_HOUR)
    every = "Every catalog" if partitions.catalogs else "The asset"
    lately = f"in the last {hours(max_age):g} hours"
    resources: set[str] = set()
    if partitions.catalogs and asset.is_executable:
        resources = set(asset.op.required_resource_keys)  # might include an OctogenResource

    def result(
        context: dg.AssetCheckExecutionContext | dg.AssetExecutionContext,
    ) -> dg.AssetCheckResult:
        now = clock()
        newest, current, is_first = _newest(context.instance, key, partitions, now - max_age)
        found = freshness(newest, current, is_first=is_first)
        if found.stale:
            listed = _listed(context, resources)
            found = freshness(newest, current, listed, is_first=is_first)
        metadata = {**_figures(found), "octogen/max_age_hours": hours(max_age)}
        if found.stale:
            sample = _longest_stale(context.instance, key, found.stale, now)
            metadata["octogen/sample"] = dg.MetadataValue.md(markdown_table(sample))
        subject = key.to_user_string()
        sentences = [_materialized(subject, found, len(newest), lately), *_remarks(found)]
        return dg.AssetCheckResult(
            passed=not found.stale,
            severity=severity,
            description=" ".join(sentences),
            metadata=metadata,
        )

    @dg.asset_check(
        asset=key,
        name=FRESH,
        description=f"{every} was materialized {lately}.",
        automation_condition=every_hour & ~dg.AutomationCondition.in_progress(),
        # Definitions need not provide the resources bound to the asset.
        required_resource_keys=resources - set(asset.resource_defs),
        resource_defs=dict(asset.resource_defs) if resources else {},
    )
    def fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return result(context)

    ASSET_CHECKS[fresh.node_def] = result
    return fresh


class Freshness(NamedTuple):
    """The result of the `fresh` check for each part of an asset.

    A part is a catalog, or the whole asset if it has no catalogs.

    Attributes:
        fresh: The parts that were materialized within the maximum age.
        stale: The parts that were not materialized within the maximum age. Each part is mapped to
            the storage id of its latest materialization, or to 0 if it was never materialized. A
            stale part fails the check.
        awaited: The parts that were never materialized, as long as the asset's first
            materialization is within the maximum age.
        withdrawn: The parts that are not fresh and that the source no longer lists.
        ignores_list: True if the source's list is ignored, because it contains none of the parts
            and is probably broken.
    """

    fresh: list[Part]
    stale: dict[Part, int]
    awaited: list[Part]
    withdrawn: list[Part]
    ignores_list: bool


def freshness(
    newest: Mapping[Part, int],
    current: Collection[Part],
    listed: Mapping[Part, int | None] | None = None,
    *,
    is_first: bool,
) -> Freshness:
    """Classify the parts of an asset as fresh, stale, awaited or withdrawn.

    Args:
        newest: All parts, mapped to the storage id of their latest materialization, or to 0 if they
            were never materialized.
        current: The parts that were materialized within the maximum age.
        listed: The product counts of the parts that the source lists; None if they are unknown.
        is_first: True if the asset's first materialization is within the maximum age.
    """
    ignores_list = listed is not None and listed.keys().isdisjoint(newest)
    found = Freshness([], {}, [], [], ignores_list)
    for part, storage_id in newest.items():
        if part in current:
            found.fresh.append(part)
        elif is_first and not storage_id:
            found.awaited.append(part)
        elif listed is None or ignores_list:
            found.stale[part] = storage_id
        elif part not in listed:
            found.withdrawn.append(part)
        elif storage_id or listed[part] != 0:  # an empty catalog has nothing to publish
            found.stale[part] = storage_id
    return found


def _newest(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    partitions: PartitionLayout,
    cutoff: datetime,
) -> tuple[dict[Part, int], set[Part], bool]:
    """Compute three arguments for `freshness`: `newest`, `current` and `is_first`."""
    before = dg.AssetRecordsFilter(asset, before_timestamp=cutoff.timestamp())
    old = instance.fetch_materializations(before, limit=1).records
    cutoff_id = old[0].storage_id if old else 0
    newest: dict[Part, int] = dict.fromkeys(_parts(instance, partitions), 0)
    current = set[Part]()
    is_partitioned = not (partitions.catalogs is None and partitions.times is None)
    ids = latest_id_by_partition(instance, asset, partitioned=is_partitioned)
    for partition, storage_id in ids.items():
        part = None if partition is None else partitions.catalog_key(partition)
        if part not in newest:  # the partition was deleted
            continue
        newest[part] = max(newest[part], storage_id)
        window = None if partition is None else partitions.window(partition)
        # A snapshot for a time window in the past does not make its catalog fresh.
        if storage_id > cutoff_id and (window is None or window[1] > cutoff):
            current.add(part)
    return newest, current, bool(current) and not cutoff_id


def _figures(found: Freshness) -> Metadata:
    metadata: Metadata = {
        "octogen/fresh": len(found.fresh),
        "octogen/stale": len(found.stale),
        "octogen/never_materialized": _never(found),
        "octogen/awaited": len(found.awaited),
        "octogen/withdrawn": len(found.withdrawn),
    }
    if found.withdrawn:
        names = dg.MetadataValue.json(sorted(map(str, found.withdrawn))[:_MAX_STALE_SHOWN])
        metadata["octogen/withdrawn_catalogs"] = names
    return metadata


def _never(found: Freshness) -> int:
    return list(found.stale.values()).count(0)


def _materialized(subject: str, found: Freshness, parts: int, lately: str) -> str:
    if None in found.stale:
        return f"{subject} was not materialized {lately}. {_ADVICE}"
    if found.stale:
        return (
            f"{len(found.stale):,} of {parts:,} catalogs in {subject} were not materialized "
            f"{lately}, including {_never(found):,} that were never materialized. {_ADVICE}"
        )
    if None in found.fresh:
        return f"{subject} was materialized {lately}."
    count = len(found.fresh)
    return f"{count:,} of {count:,} expected catalogs in {subject} were materialized {lately}."


def _remarks(found: Freshness) -> Iterator[str]:
    """Yield remarks about awaited and withdrawn catalogs, and about an ignored catalog source."""
    if found.ignores_list:
        yield (
            "The catalog source lists none of these catalogs, so the source was ignored. Correct "
            "the source. If the catalogs no longer exist, delete their partitions."
        )
    if found.awaited:
        yield (
            f"Catalogs without a snapshot: {len(found.awaited):,}. The check fails for these "
            "catalogs once the asset's first snapshot is older than the maximum age."
        )
    if found.withdrawn:
        yield (
            f"Catalogs that are no longer listed: {len(found.withdrawn):,}. The check does not "
            "fail for these catalogs, and their snapshots are kept."
        )


def _parts(instance: dg.DagsterInstance, partitions: PartitionLayout) -> Iterable[Part]:
    if partitions.catalogs is None:
        return [None]
    return partitions.catalogs.get_partition_keys(dynamic_partitions_store=instance)


def _listed(
    context: dg.AssetCheckExecutionContext | dg.AssetExecutionContext, resources: Iterable[str]
) -> dict[Part, int | None] | None:
    """Return the source's product counts by partition key, or None if the counts are unknown."""
    for octogen in (getattr(context.resources, name) for name in resources):
        if not isinstance(octogen, ListsCatalogs):
            continue
        try:
            listed = octogen.listed_product_counts()
        except OctogenError as error:
            context.log.warning(
                "The catalog list could not be read, so stale catalogs might no longer be listed. "
                f"{error}"
            )
            return None
        if listed is not None:
            keys, _ = keys_by_catalog(listed)
            return {keys[catalog]: listed[catalog] for catalog in keys}
    return None


def _longest_stale(
    instance: dg.DagsterInstance, asset: dg.AssetKey, stale: Mapping[Part, int], now: datetime
) -> pl.DataFrame:
    """Return the parts that have been stale the longest.

    Parts that were never materialized come first.
    """
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
