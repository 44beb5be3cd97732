"""The step of a run that publishes an asset's snapshots, and what it reported of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.run_budget import retried_runs, shared_budget

if TYPE_CHECKING:
    from octogen_dagster.api.spending import Spending

_RECORDS_AT_ONCE = 500
"""Records that are asked for at once: Dagster refuses more than 10,000."""


@dataclass(frozen=True)
class PublishingStep:
    """The step of a run that publishes snapshots; no instance and no id in a test without a run.

    What was reported before was so by earlier attempts of the step, or by the runs that its run
    retries.
    """

    asset: dg.AssetKey
    partitions_def: dg.PartitionsDefinition[Any] | None
    log: dg.DagsterLogManager
    instance: dg.DagsterInstance | None
    run_id: str | None
    key: str

    def shared_budget(
        self, spending: Spending | None
    ) -> AbstractContextManager[Callable[[], None]]:
        """Let the block spend what other steps and attempts of the run have left of the budget."""
        return shared_budget(self.instance, self.run_id, self.key, spending, self.log)

    def reported_before(self) -> dict[str, dg.EventLogRecord]:
        """The records of the materializations that were reported before, by partition."""
        logged: dict[str, dg.EventLogEntry] = {}
        for entry in self.logged_before(dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.asset_materialization
            if event and event.asset_key == self.asset and event.partition is not None:
                logged.setdefault(event.partition, entry)
        # A process that is killed may have written the run's log, and not the asset's page.
        return {
            partition: record
            for partition, record in last_records(self.instance, self.asset, list(logged)).items()
            if record.timestamp >= logged[partition].timestamp
        }

    def evaluated_before(self) -> Mapping[str, Collection[str]]:
        """The checks that were evaluated before, by partition."""
        found = defaultdict[str, set[str]](set)
        for entry in self.logged_before(dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            evaluation = entry.asset_check_evaluation
            if (
                evaluation
                and evaluation.asset_key == self.asset
                and evaluation.partition is not None
            ):
                found[evaluation.partition].add(evaluation.check_name)
        return found

    def logged_before(self, kind: dg.DagsterEventType) -> Iterator[dg.EventLogEntry]:
        """The events of a kind of the run and of those that it retries, the latest run first."""
        if self.instance is not None:
            for run in retried_runs(self.instance, self.run_id):
                yield from self.instance.all_logs(run.run_id, of_type=kind)

    def materialization(
        self, partition: str, metadata: Mapping[str, Any], version: str | None = None
    ) -> dg.AssetMaterialization:
        """The materialization of one partition of a run that has several.

        Its data version is that of the catalog, or else one that no other run has.
        """
        tags = {"dagster/data_version": version or self.run_id or ""}
        if version:
            tags["dagster/data_version_is_user_provided"] = "true"
        if isinstance(partition, dg.MultiPartitionKey):
            keys = partition.keys_by_dimension.items()
            tags |= {f"dagster/partition/{name}": key for name, key in keys}
        return dg.AssetMaterialization(
            self.asset, partition=partition, metadata=metadata, tags=tags
        )


def last_records(
    instance: dg.DagsterInstance | None, asset: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dg.EventLogRecord]:
    """The records of the last materializations of partitions, without those that have none."""
    kind, found = dg.DagsterEventType.ASSET_MATERIALIZATION, dict[str, dg.EventLogRecord]()
    for first in range(0, len(partitions), _RECORDS_AT_ONCE):
        assert instance is not None
        some = set(partitions[first : first + _RECORDS_AT_ONCE])
        latest = instance.get_latest_storage_id_by_partition(asset, kind, some)
        if not latest:
            continue
        filters = dg.AssetRecordsFilter(asset, storage_ids=list(latest.values()))
        for record in instance.fetch_materializations(filters, limit=len(latest)).records:
            if record.partition_key is not None:
                found[record.partition_key] = record
    return found
