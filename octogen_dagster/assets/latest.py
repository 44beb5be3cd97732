"""Read the last materialization by partition."""

from collections.abc import Collection, Mapping

import dagster as dg

from octogen_dagster.errors import dagster_private

DATA_VERSION_TAG = "dagster/data_version"
READ_AGAIN = " read again in "
"""In a data version, separates a catalog's version from the ID of the run that read it again."""
_AGAIN = " (indexed again)"
_SAME_IN = " = "
_MADE = dg.DagsterEventType.ASSET_MATERIALIZATION
_OBSERVED = dg.DagsterEventType.ASSET_OBSERVATION


def latest_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Collection[str] | None = None
) -> Mapping[str, int]:
    """Return the last materialization's storage ID by partition."""
    read = dagster_private(instance, "get_latest_storage_id_by_partition")
    ids: Mapping[str, int] = read(asset, _MADE, None if partitions is None else set(partitions))
    return ids


def indexed_again(
    asset: dg.AssetKey, partition: str, data_version: str, version: str
) -> dg.AssetObservation:
    """Return an observation: the partition has the same rows in a later catalog version.

    Dagster would treat an observation of the partition itself as a change. A tag of the
    materialization would be simpler, but Dagster can only query the data version by partition.
    """
    return dg.AssetObservation(
        asset,
        description=f"Nothing changed in {version}.",
        partition=f"{partition}{_AGAIN}",
        tags={DATA_VERSION_TAG: f"{data_version}{_SAME_IN}{version}"},
    )


def catalog_version(data_version: str) -> str:
    """Return the catalog's version that a data version contains."""
    return data_version.partition(READ_AGAIN)[0]


def latest_versions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    """Return, for each partition, the catalog's version when the partition was last read.

    It is the last materialization's version, or a later version with the same rows.
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
    """Return the last event's data version by partition."""
    read = dagster_private(instance.event_log_storage, "get_latest_tags_by_partition")
    return {
        partition: found[DATA_VERSION_TAG]
        for partition, found in read(asset, kind, [DATA_VERSION_TAG]).items()
        if DATA_VERSION_TAG in found
    }
