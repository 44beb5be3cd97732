"""Reads each partition's latest materialization."""

from collections.abc import Collection, Mapping

import dagster as dg

from octogen_dagster.errors import dagster_private

DATA_VERSION_TAG = "dagster/data_version"
READ_AGAIN = " read again in "
"""Separates the catalog version from the run ID in a data version.

The run ID makes the data version unique.
"""
_AGAIN = " (indexed again)"
_SAME_IN = " = "
_MADE = dg.DagsterEventType.ASSET_MATERIALIZATION
_OBSERVED = dg.DagsterEventType.ASSET_OBSERVATION


def latest_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Collection[str] | None = None
) -> Mapping[str, int]:
    """Return the storage ID of each partition's latest materialization."""
    read = dagster_private(instance, "get_latest_storage_id_by_partition")
    ids: Mapping[str, int] = read(asset, _MADE, None if partitions is None else set(partitions))
    return ids


def latest_id_by_partition(
    instance: dg.DagsterInstance, asset: dg.AssetKey, *, partitioned: bool
) -> dict[str | None, int]:
    """Return the storage ID of each partition's latest materialization.

    If the asset has no partitions, the only key is None.
    """
    if partitioned:
        return dict[str | None, int](latest_ids(instance, asset).items())
    records = instance.fetch_materializations(asset, limit=1).records
    return {None: records[0].storage_id} if records else {}


def indexed_again(
    asset: dg.AssetKey, partition: str, data_version: str, version: str
) -> dg.AssetObservation:
    """Return an observation that records that a later catalog version has the same rows.

    The observation has a separate partition key, because Dagster would treat an observation of the
    partition itself as a change. A tag on the materialization would be simpler, but Dagster can
    query only the data version by partition.
    """
    return dg.AssetObservation(
        asset,
        description=f"Nothing changed in {version}.",
        partition=f"{partition}{_AGAIN}",
        tags={DATA_VERSION_TAG: f"{data_version}{_SAME_IN}{version}"},
    )


def catalog_version(data_version: str) -> str:
    """Return the catalog version that is part of a data version."""
    return data_version.partition(READ_AGAIN)[0]


def latest_versions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    """Return the catalog version that was last read for each partition.

    The version is from the latest materialization, or is a later version with the same rows.
    """
    made = _versions(instance, asset, _MADE)
    versions = {partition: catalog_version(tag) for partition, tag in made.items()}
    for observed, tag in _versions(instance, asset, _OBSERVED).items():
        partition = observed.removesuffix(_AGAIN)
        data_version, _, version = tag.rpartition(_SAME_IN)
        if made.get(partition) == data_version:
            versions[partition] = version
    return versions


def _versions(
    instance: dg.DagsterInstance, asset: dg.AssetKey, kind: dg.DagsterEventType
) -> dict[str, str]:
    """Return the data version in each partition's latest event."""
    read = dagster_private(instance.event_log_storage, "get_latest_tags_by_partition")
    return {
        partition: found[DATA_VERSION_TAG]
        for partition, found in read(asset, kind, [DATA_VERSION_TAG]).items()
        if DATA_VERSION_TAG in found
    }
