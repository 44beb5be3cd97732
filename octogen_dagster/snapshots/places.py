"""The places where the snapshots of an asset are stored. The files themselves are elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from octogen_dagster.snapshots.partitions import (
    MAX_TIMES_BACK,
    SnapshotPartitions,
    path_component,
)
from octogen_dagster.snapshots.snapshot_files import SnapshotFile

if TYPE_CHECKING:
    from upath import UPath

    Context = dg.InputContext | dg.OutputContext


class SnapshotPlaces:
    """The places of an asset's snapshots.

    An asset `a/b` is `<base>/a/b.parquet`, its partition `k` is `<base>/a/b/k.parquet`.

    Args:
        base: The folder or prefix that all snapshots are stored below.
        context: The context of the output or the input, which names the asset and the partition.
    """

    def __init__(self, base: UPath, context: Context) -> None:
        self._base = base
        self._context = context

    @property
    def has_times(self) -> bool:
        """True if the asset has partitions of time."""
        if not self._context.has_asset_partitions:
            return False
        return SnapshotPartitions(self._context.asset_partitions_def).times is not None

    @property
    def own(self) -> SnapshotFile:
        """The place of the run's partition, or of an asset without partitions."""
        return self.of(self._context.partition_key if self._context.has_asset_partitions else None)

    def of(self, partition: str | None) -> SnapshotFile:
        """The place of a partition; None for an asset without partitions."""
        parts = list(self._context.asset_key.path)
        if isinstance(partition, dg.MultiPartitionKey):
            parts += [key for _, key in sorted(partition.keys_by_dimension.items())]
        elif partition is not None:
            parts.append(partition)
        *folders, name = (path_component(part) for part in parts)
        path: UPath = self._base.joinpath(*folders, f"{name}.parquet")
        return SnapshotFile(path)

    def partition_before(self) -> str | None:
        """The last of the 31 partitions before the run's that has a snapshot; None if none has."""
        partitions = SnapshotPartitions(self._context.asset_partitions_def)
        before = partitions.before(self._context.partition_key)
        for _ in range(MAX_TIMES_BACK):
            if before is None or self.of(before).exists():
                return before
            before = partitions.before(before)
        return None

    def latest(self) -> SnapshotFile | None:
        """The run's own snapshot if it exists, or else that of `partition_before`."""
        if self.own.exists():
            return self.own
        before = self.partition_before() if self.has_times else None
        return None if before is None else self.of(before)
