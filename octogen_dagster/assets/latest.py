"""The last materialization of each partition.

Dagster tells all of them in a query, and does not promise to. Without that, all materializations
are read.
"""

from collections.abc import Collection, Mapping

import dagster as dg

DATA_VERSION_TAG = "dagster/data_version"
READ_AGAIN = " read again in "
"""Stands between the version of a catalog and the run that found other rows in it."""
_AGAIN = " (indexed again)"
_SAME_IN = " = "
_MADE = dg.DagsterEventType.ASSET_MATERIALIZATION
_OBSERVED = dg.DagsterEventType.ASSET_OBSERVATION
_RECORDS_AT_ONCE = 1_000


def latest_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Collection[str] | None = None
) -> Mapping[str, int]:
    """The storage id of the last materialization of each partition, or of those that are named."""
    read = getattr(instance, "get_latest_storage_id_by_partition", None)
    if read is None:
        found = _latest(instance, asset, _MADE, partitions)
        return {partition: record.storage_id for partition, record in found.items()}
    ids: Mapping[str, int] = read(asset, _MADE, None if partitions is None else set(partitions))
    return ids


def indexed_again(
    asset: dg.AssetKey, partition: str, data_version: str, version: str
) -> dg.AssetObservation:
    """The observation that a partition with a data version was read in another version, too.

    It is not of the partition itself, of which Dagster would take it for a change.
    """
    return dg.AssetObservation(
        asset,
        description=f"Nothing changed in {version}.",
        partition=f"{partition}{_AGAIN}",
        tags={DATA_VERSION_TAG: f"{data_version}{_SAME_IN}{version}"},
    )


def catalog_version(data_version: str) -> str:
    """The version of the catalog that a data version stands for."""
    return data_version.partition(READ_AGAIN)[0]


def latest_versions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    """The version of the catalog in which each partition was read last.

    It is that of its last materialization, or a later one that had nothing new.
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
    """The data version of the last event of a kind of each partition."""
    read = getattr(instance.event_log_storage, "get_latest_tags_by_partition", None)
    if read is None:
        tags = {
            partition: event.tags or {}
            for partition, record in _latest(instance, asset, kind).items()
            if (event := record.asset_materialization or record.event_log_entry.asset_observation)
        }
    else:
        tags = read(asset, kind, [DATA_VERSION_TAG])
    return {
        partition: found[DATA_VERSION_TAG]
        for partition, found in tags.items()
        if DATA_VERSION_TAG in found
    }


def _latest(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    kind: dg.DagsterEventType,
    partitions: Collection[str] | None = None,
) -> dict[str, dg.EventLogRecord]:
    fetch = instance.fetch_materializations if kind is _MADE else instance.fetch_observations
    only = None if partitions is None else list(partitions)
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=only)
    found, cursor = dict[str, dg.EventLogRecord](), None
    while True:
        read = fetch(wanted, limit=_RECORDS_AT_ONCE, cursor=cursor)
        for record in read.records:  # the newest first
            if record.partition_key is not None:
                found.setdefault(record.partition_key, record)
        if not read.has_more:
            return found
        cursor = read.cursor
