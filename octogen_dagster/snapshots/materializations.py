"""Materializations of snapshots, as Dagster's database has them."""

from collections.abc import Sequence

import dagster as dg

_MAX_OF_EACH = 100


def read_last(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str | None, limit: int
) -> list[dg.EventLogRecord]:
    """The last materializations of a partition, or of an asset as a whole, the newest first."""
    only = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=only)
    return list(instance.fetch_materializations(wanted, limit=limit).records)


def read_last_of_each(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]
) -> list[dg.EventLogRecord]:
    """The last materialization of each of some partitions that has one, in their order."""
    if not partitions:
        return []
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=partitions)
    records = instance.fetch_materializations(wanted, limit=_MAX_OF_EACH).records
    newest = {record.partition_key: record for record in reversed(records)}
    return [newest[key] for key in partitions if key in newest]
