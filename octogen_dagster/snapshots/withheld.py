"""Catalogs that the service withholds: they have a partition, and none of their products is read.

Such a catalog was mistyped, renamed or withdrawn. An observation of its partition reports it, and
schedules leave it out until it has a snapshot again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from octogen_dagster.snapshots.partitions import SnapshotPartitions

GRANTED = "octogen/granted"
_MAX_OBSERVATIONS = 1000


def withheld_observation(products: dg.AssetKey, partition: str) -> dg.AssetObservation:
    """Build the observation of a catalog that is not granted.

    Args:
        products: The asset that has the partition.
        partition: The partition of the catalog.
    """
    return dg.AssetObservation(products, partition=partition, metadata={GRANTED: False})


def withheld_catalogs(
    instance: dg.DagsterInstance, products: dg.AssetKey, partitions: SnapshotPartitions
) -> set[str]:
    """Read the partition keys of the catalogs that were reported and have no snapshot since.

    Args:
        instance: The instance.
        products: The asset that has the partitions.
        partitions: The asset's partitions.
    """
    if partitions.catalogs is None:
        return set()
    reported: dict[str, tuple[int, bool]] = {}
    for record in instance.fetch_observations(products, limit=_MAX_OBSERVATIONS).records:
        observation = record.asset_observation
        if not observation or not observation.partition or GRANTED not in observation.metadata:
            continue
        key = partitions.catalog_key(observation.partition)
        if key is not None:  # the newest comes first
            is_withheld = observation.metadata[GRANTED].value is False
            reported.setdefault(key, (record.storage_id, is_withheld))
    latest = _latest_snapshots(instance, products, partitions) if reported else {}
    return {
        key
        for key, (storage_id, is_withheld) in reported.items()
        if is_withheld and latest.get(key, 0) < storage_id
    }


def report_withheld(
    context: dg.AssetExecutionContext, partitions: SnapshotPartitions, key: str
) -> str:
    """Report a catalog that cannot be read, unless it has a snapshot.

    Schedules go on requesting a catalog that has one, so that somebody sees that it fails.

    Args:
        context: The context of the run.
        partitions: The asset's partitions.
        key: The catalog's partition key.

    Returns:
        What to add to the failure of the run.
    """
    text = ""
    catalogs = partitions.catalogs
    if isinstance(catalogs, dg.DynamicPartitionsDefinition):
        text = (
            ' A partition that is mistyped stays until you delete it: "Delete partitions" on the '
            "page of the asset, or "
            f"DagsterInstance.get().delete_dynamic_partition({catalogs.name!r}, {key!r})."
        )
    if key in _latest_snapshots(context.instance, context.asset_key, partitions):
        return text
    context.instance.report_runless_asset_event(
        withheld_observation(context.asset_key, context.partition_key)
    )
    return f"{text} Schedules leave it out until it has a snapshot."


def _latest_snapshots(
    instance: dg.DagsterInstance, products: dg.AssetKey, partitions: SnapshotPartitions
) -> dict[str, int]:
    """Read the storage id of the latest materialization of each catalog, by partition key."""
    latest: dict[str, int] = {}
    by_partition = instance.get_latest_storage_id_by_partition(
        products, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    for partition, storage_id in by_partition.items():
        key = partitions.catalog_key(partition)
        if key is not None:
            latest[key] = max(storage_id, latest.get(key, 0))
    return latest
