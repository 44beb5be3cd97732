"""The places where the snapshots of an asset are stored. The files themselves are in a store."""

from __future__ import annotations

import dagster as dg

from octogen_dagster.snapshots.partitions import SnapshotPartitions, path_component
from octogen_dagster.store import Store


class SnapshotPlaces:
    """The keys of an asset's snapshots in a store.

    An asset `a/b` is `a/b.parquet`, its partition `k` is `a/b/k.parquet`.
    """

    def __init__(self, store: Store, context: dg.InputContext | dg.OutputContext) -> None:
        self._store = store
        self._context = context

    @property
    def has_times(self) -> bool:
        """True if the asset has partitions of time."""
        if not self._context.has_asset_partitions:
            return False
        return SnapshotPartitions(self._context.asset_partitions_def).times is not None

    @property
    def own(self) -> str:
        """The key of the run's partition, or of an asset without partitions."""
        return self.of(self._context.partition_key if self._context.has_asset_partitions else None)

    def of(self, partition: str | None) -> str:
        """The key of a partition; None for an asset without partitions."""
        parts = list(self._context.asset_key.path)
        if isinstance(partition, dg.MultiPartitionKey):
            parts += [key for _, key in sorted(partition.keys_by_dimension.items())]
        elif partition is not None:
            parts.append(partition)
        return f"{'/'.join(path_component(part) for part in parts)}.parquet"

    @property
    def saved_pages(self) -> str:
        """The folder of the saved pages of all partitions, so that each run removes old ones."""
        *folders, name = (path_component(part) for part in self._context.asset_key.path)
        return "/".join([*folders, f".{name}.pages"])

    def partition_before(self) -> str | None:
        """The last of the 31 partitions before the run's that has a snapshot; None if none has."""
        partitions = SnapshotPartitions(self._context.asset_partitions_def)
        times = partitions.times_before(self._context.partition_key)
        return next((key for key in times if self._store.exists(self.of(key))), None)

    def latest(self) -> str | None:
        """The key of the run's own snapshot if it exists, or else that of `partition_before`."""
        if self._store.exists(self.own):
            return self.own
        before = self.partition_before() if self.has_times else None
        return None if before is None else self.of(before)
