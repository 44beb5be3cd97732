"""SnapshotHistory: what Dagster's event log says of a snapshot and of those before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from octogen_dagster.snapshots.partitions import MAX_TIMES_BACK, SnapshotPartitions

SNAPSHOTS_BACK = 5
"""How many earlier snapshots the number of rows is compared with."""
_MAX_RECORDS = 100
_EVALUATED = {
    AssetCheckExecutionRecordStatus.SUCCEEDED,
    AssetCheckExecutionRecordStatus.FAILED,
}


class CheckedPartition(NamedTuple):
    """An asset with the partition of it that is checked.

    Attributes:
        asset: The key of the asset.
        partition: The partition; None for an asset without partitions, and in a run of several.
        partitions: The partitions of the asset.
    """

    asset: dg.AssetKey
    partition: str | None
    partitions: SnapshotPartitions

    @property
    def is_partitioned(self) -> bool:
        """True if the asset has partitions; a run of several of them checks none in particular."""
        return bool(self.partitions.catalogs or self.partitions.times)

    def __str__(self) -> str:
        of = "" if self.partition is None else f", partition {self.partition!r}"
        return f"{self.asset.to_user_string()}{of}"


@dataclass(frozen=True)
class SnapshotHistory:
    """The materializations of a snapshot and of those before it.

    A snapshot with a time comes after those of earlier times, and another one after those that it
    replaced. Snapshots of another search, such as that of a run in the launchpad, do not count.

    Attributes:
        materializations: Their records, the newest first. The first is that of the snapshot itself.
        checks: The metadata with which checks judged the last snapshot before this one, by the
            name of the check.
    """

    materializations: Sequence[dg.EventLogRecord] = ()
    checks: Mapping[str, Mapping[str, dg.MetadataValue[Any]]] = field(default_factory=dict)

    def current(self, name: str) -> Any:
        """The value of a metadata entry of the snapshot itself; None without one."""
        return _values(self.materializations[:1], name)[0] if self.materializations else None

    def earlier(self, name: str) -> list[Any]:
        """The values of a metadata entry of the snapshots before, None where there is none."""
        return _values(self.materializations[1:], name)

    def stored(self, check: str, name: str) -> dict[str, Any]:
        """What a check stored of the last snapshot before; empty if it did not judge it."""
        entry = self.checks.get(check, {}).get(name)
        data = entry.data if isinstance(entry, dg.JsonMetadataValue) else None
        return dict(data) if isinstance(data, Mapping) else {}


def _search(record: dg.EventLogRecord) -> dict[str, Any]:
    """The search of a snapshot, without the size of its pages, which changes nothing it finds."""
    search = _values([record], "octogen/search")[0]
    return {**search, "page_size": None} if isinstance(search, Mapping) else {}


def _values(records: Sequence[dg.EventLogRecord], name: str) -> list[Any]:
    events = [record.asset_materialization for record in records]
    entries = [event.metadata.get(name) if event else None for event in events]
    return [None if entry is None else entry.value for entry in entries]


def read_history(
    instance: dg.DagsterInstance, checked: CheckedPartition, checks: Collection[str]
) -> SnapshotHistory:
    """Read the history of a snapshot.

    Args:
        instance: The instance with the event log.
        checked: The asset and its partition.
        checks: The names of the checks that compare a snapshot with what they stored of the last.
    """
    if checked.partition is None and checked.is_partitioned:
        return SnapshotHistory()
    records = _materializations(instance, checked, SNAPSHOTS_BACK + 1)
    before = _times_before(checked)
    if records and before is not None:
        earlier = _newest_of_each(instance, checked.asset, before)
        records = [records[0], *earlier[:SNAPSHOTS_BACK]]
    records = [record for record in records if _search(record) == _search(records[0])]
    if len(records) < 2:
        return SnapshotHistory(records)
    keys = {name: dg.AssetCheckKey(checked.asset, name) for name in checks}
    return SnapshotHistory(
        records, {name: _judged(instance, key, records[1]) for name, key in keys.items()}
    )


def _materializations(
    instance: dg.DagsterInstance, checked: CheckedPartition, limit: int
) -> Sequence[dg.EventLogRecord]:
    partitions = None if checked.partition is None else [checked.partition]
    records = dg.AssetRecordsFilter(checked.asset, asset_partitions=partitions)
    return instance.fetch_materializations(records, limit=limit).records


def _times_before(checked: CheckedPartition) -> list[str] | None:
    """The partitions of the times before, the newest first; None without times."""
    if checked.partitions.times is None or checked.partition is None:
        return None
    keys: list[str] = []
    key = checked.partitions.before(checked.partition)
    while key is not None and len(keys) < MAX_TIMES_BACK:
        keys.append(key)
        key = checked.partitions.before(key)
    return keys


def _newest_of_each(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]
) -> list[dg.EventLogRecord]:
    """The last materialization of each partition that has one, in the order of the partitions."""
    if not partitions:
        return []
    records = dg.AssetRecordsFilter(asset, asset_partitions=[str(key) for key in partitions])
    newest: dict[str | None, dg.EventLogRecord] = {}
    for record in instance.fetch_materializations(records, limit=_MAX_RECORDS).records:
        newest.setdefault(record.partition_key, record)
    return [newest[key] for key in partitions if key in newest]


def _judged(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, snapshot: dg.EventLogRecord
) -> Mapping[str, dg.MetadataValue[Any]]:
    """The metadata with which a check judged a snapshot; empty if it did not."""
    history = instance.event_log_storage.get_asset_check_execution_history(
        check,
        limit=_MAX_RECORDS,
        status=_EVALUATED,
        partition_filter=PartitionKeyFilter(key=snapshot.partition_key),
    )
    for record in history:
        evaluation = record.evaluation
        target = evaluation.target_materialization_data if evaluation else None
        if evaluation and target and target.storage_id == snapshot.storage_id:
            return evaluation.metadata
    return {}
