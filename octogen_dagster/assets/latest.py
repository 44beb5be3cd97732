"""The last materialization of each partition.

Dagster tells all of them in a query, and does not promise to. Without that, all materializations
are read.
"""

from collections.abc import Collection, Mapping

import dagster as dg

DATA_VERSION_TAG = "dagster/data_version"
_KIND = dg.DagsterEventType.ASSET_MATERIALIZATION
_RECORDS_AT_ONCE = 1_000


def latest_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Collection[str] | None = None
) -> Mapping[str, int]:
    """The storage id of the last materialization of each partition, or of those that are named."""
    read = getattr(instance, "get_latest_storage_id_by_partition", None)
    if read is None:
        found = _latest(instance, asset, partitions)
        return {partition: record.storage_id for partition, record in found.items()}
    ids: Mapping[str, int] = read(asset, _KIND, None if partitions is None else set(partitions))
    return ids


def latest_versions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    """The data version of the last materialization of each partition."""
    read = getattr(instance.event_log_storage, "get_latest_tags_by_partition", None)
    if read is None:
        materializations = (
            (partition, record.asset_materialization)
            for partition, record in _latest(instance, asset).items()
        )
        tags = {partition: made.tags or {} for partition, made in materializations if made}
    else:
        tags = read(asset, _KIND, [DATA_VERSION_TAG])
    return {
        partition: found[DATA_VERSION_TAG]
        for partition, found in tags.items()
        if DATA_VERSION_TAG in found
    }


def _latest(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Collection[str] | None = None
) -> dict[str, dg.EventLogRecord]:
    only = None if partitions is None else list(partitions)
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=only)
    found, cursor = dict[str, dg.EventLogRecord](), None
    while True:
        read = instance.fetch_materializations(wanted, limit=_RECORDS_AT_ONCE, cursor=cursor)
        for record in read.records:  # the newest first
            if record.partition_key is not None:
                found.setdefault(record.partition_key, record)
        if not read.has_more:
            return found
        cursor = read.cursor
