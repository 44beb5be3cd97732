"""The loading of snapshots as the inputs of assets."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

import dagster as dg
import polars as pl

from octogen_dagster.asset_definition import keeps_snapshots, permanent_errors_fail, takes_range
from octogen_dagster.errors import MissingPackageError, OctogenSnapshotError, Persistence
from octogen_dagster.frames.stored import SnapshotPair, SnapshotTimes, StoredSnapshot
from octogen_dagster.io_source import errors_as_raised
from octogen_dagster.snapshots.partitions import PartitionLayout, SnapshotKeys
from octogen_dagster.store import MAX_OPEN_FILES, previous_of

if TYPE_CHECKING:
    from datetime import datetime

    from octogen_dagster.store import Store

BATCH_ROWS = 10_000
"""Rows of a file that are in memory at the same time where it is read in batches."""
ALLOW_MISSING = "allow_missing_partitions"
TOGETHER = "octogen_together"
"""The metadata of an input that is a dict of frames, to which all partitions are one entry."""
_LOADED = (
    "pl.LazyFrame, pl.DataFrame, pd.DataFrame, pyarrow.Table, pathlib.Path, dict[str, ...] of one "
    "of these for several partitions, or SnapshotPair"
)


NEEDS_PREVIOUS = "it is made from a snapshot and the one before, which no other IO manager keeps"


def require_own(key: str, manager: Any, asset: str, why: str) -> None:
    """Fail the run, without a retry, if an IO manager is none that keeps snapshots."""
    if keeps_snapshots(manager):
        return
    raise dg.Failure(
        f"{asset} needs a ParquetSnapshotIOManager, and the resource {key!r} is a "
        f"{type(manager).__name__}: {why}. Add a resource such as "
        'snapshots=ParquetSnapshotIOManager(base_dir="snapshots"), and give '
        'io_manager_key="snapshots" to this asset and to the products that it is made from.',
        allow_retries=False,
    )


def snapshot_input(
    name: str, asset: dg.AssetsDefinition, partition_mapping: dg.PartitionMapping | None = None
) -> dict[str, Any]:
    """The arguments of an asset, or of checks, that has the snapshots of an asset as its input.

    The input has a manager of its own, since Dagster lets no other IO manager than ours load what
    these functions take.
    """
    key = asset.get_io_manager_key_for_asset_key(asset.key)
    own = {key: asset.resource_defs[key]} if key in asset.resource_defs else {}
    manager_key = f"octogen_{key}"
    snapshots = dg.AssetIn(
        asset.key, partition_mapping=partition_mapping, input_manager_key=manager_key
    )
    return {"ins": {name: snapshots}, "resource_defs": {manager_key: _input_manager(key), **own}}


@functools.cache
def _input_manager(key: str) -> dg.ResourceDefinition:
    """Load inputs by the IO manager of a key; it is cached, since Dagster compares resources."""

    @dg.input_manager(required_resource_keys={key})
    def load(context: dg.InputContext) -> Any:
        manager = getattr(context.resources, key)
        if keeps_snapshots(manager):
            with permanent_errors_fail():
                return manager.load_input(context)
        kind = context.dagster_type.typing_type
        if why := _NEEDED.get(kind):
            require_own(key, manager, context.op_def.name, why)
        frame = manager.load_input(_AsFrame(context, key)).lazy()
        if kind is not InputSnapshots:
            return frame
        partitions = context.asset_partition_keys
        return InputSnapshots(partitions, lambda _: frame, lambda _: SnapshotPair(frame, None))

    return load


class _NotThereError(OctogenSnapshotError):
    """There is no snapshot yet."""

    persistence = Persistence.PERMANENT


class _AsFrame(dg.InputContext):
    """An input that any IO manager loads as a frame of Polars."""

    def __init__(self, context: dg.InputContext, manager_key: str) -> None:
        vars(self).update(vars(context))
        self._manager_key = manager_key

    @property
    def dagster_type(self) -> dg.DagsterType:
        return dg.PythonObjectDagsterType(pl.DataFrame)

    @property
    def resource_config(self) -> Mapping[str, Any]:
        """That of the IO manager, and not of this input's own manager."""
        config: Mapping[str, Any] = self.step_context.resolved_run_config.resources[
            self._manager_key
        ].config
        return config


class InputSnapshots:
    """The snapshots of an input of which a run may have several partitions, opened one by one."""

    def __init__(
        self,
        partitions: Sequence[str],
        frame: Callable[[str | None], pl.LazyFrame],
        pair: Callable[[str | None], SnapshotPair],
    ) -> None:
        self.partitions = partitions
        self.frame, self.pair = frame, pair


class SnapshotFile(NamedTuple):
    """A snapshot as it is stored.

    Attributes:
        frame: Its rows.
        metadata: The metadata of its file.
        is_local: True for a file on a disk.
    """

    frame: pl.LazyFrame
    metadata: Mapping[str, str]
    is_local: bool

    @property
    def row_count(self) -> int:
        return int(self.frame.select(pl.len()).collect().item())

    def batches(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Iterator[pl.DataFrame]:
        """Execute a query of the rows, each by itself, on one batch of them after the other."""
        frame, rows = query(self.frame), self.row_count
        if not self.is_local:  # an object is read from its beginning for each slice
            yield from frame.collect_batches(chunk_size=BATCH_ROWS, engine="streaming", lazy=True)
            return
        # Less memory than Polars' own batches: half of it for a million products.
        for first in range(0, max(rows, 1), BATCH_ROWS):
            yield frame.slice(first, BATCH_ROWS).collect()


class SnapshotFiles(NamedTuple):
    """The files of an input's snapshots, opened one by one.

    Attributes:
        open: Opens that of a partition, or without partitions of None.
        partition_column: The column that tells partitions apart where they are together.
    """

    open: Callable[[str | None], SnapshotFile]
    partition_column: str


_NEEDED = {
    SnapshotPair: NEEDS_PREVIOUS,
    SnapshotTimes: NEEDS_PREVIOUS,
    SnapshotFiles: "its rows are read in batches, with the id of their snapshot",
}
"""The types that no other IO manager loads, with the reasons."""


def input_kind(asset: dg.AssetsDefinition, kind: type, policy: dg.BackfillPolicy | None) -> type:
    """The type as which a step with these partitions and this policy loads an asset's snapshots.

    It is the kind, or `InputSnapshots` if a run may have several partitions.
    """
    return InputSnapshots if takes_range(policy, asset.partitions_def) else kind


def frame_of(snapshots: pl.LazyFrame | InputSnapshots, partition: str | None) -> pl.LazyFrame:
    """The snapshot of a partition of an input."""
    return snapshots.frame(partition) if isinstance(snapshots, InputSnapshots) else snapshots


class InputLoader:
    """Loads the snapshots of an input of a step, as the type that the input is annotated with."""

    def __init__(self, store: Store, context: dg.InputContext, partition_column: str) -> None:
        self._store = store
        self._context = context
        self._partition_column = partition_column
        self._partitions_def = (
            context.asset_partitions_def if context.has_asset_partitions else None
        )

    def load(self) -> Any:
        """Load the snapshots; `ParquetSnapshotIOManager.load_input` says how."""
        context = self._context
        annotation = context.dagster_type.typing_type
        several: dict[Any, Callable[[], Any]] = {
            InputSnapshots: self._partitions,
            SnapshotFiles: lambda: SnapshotFiles(self._file, self._partition_column),
            SnapshotTimes: self._times,
            SnapshotPair: lambda: self._pair(_partition(context)),
        }
        if annotation in several:
            return several[annotation]()
        partitioned = context.has_asset_partitions
        if not partitioned:
            _check_without_partitions(context)
        wanted = _InputType(context.asset_key.to_user_string(), annotation, partitioned=partitioned)
        if not partitioned:
            return wanted.load(self._store, self._existing_key(None))
        files = self._partition_files()
        if wanted.is_dict and self._has(TOGETHER):
            return {"": self._store.scan_together(files)} if files else {}
        if wanted.is_dict:
            pinned = len(files) <= MAX_OPEN_FILES
            return {
                partition: wanted.load(self._store, key, pinned=pinned)
                for partition, key in files.items()
            }
        if context.has_partition_key and list(files) == [context.partition_key]:
            return wanted.load(self._store, next(iter(files.values())))
        return wanted.convert(self._one_frame(files))

    def _frame(self, partition: str | None) -> pl.LazyFrame:
        return self._store.scan(self._existing_key(partition))

    def _file(self, partition: str | None) -> SnapshotFile:
        frame, metadata = self._store.open(self._existing_key(partition))
        return SnapshotFile(frame, metadata, self._store.is_local)

    def _pair(self, partition: str | None) -> SnapshotPair:
        keys = self._keys(partition)
        before = None
        key: str | None = previous_of(keys.own)
        if keys.has_times:
            before = keys.partition_before()
            key = None if before is None else keys.of(before)
        # The previous snapshot is opened first. If a run publishes in between, the pair spans two
        # publications; in the other order it could compare a snapshot with itself.
        is_there = key is not None and self._store.exists(key)
        previous, previous_file_metadata = self._store.open(key) if key and is_there else (None, {})
        current, file_metadata = self._store.open(self._existing_key(partition))
        return SnapshotPair(current, previous, before, file_metadata, previous_file_metadata)

    def _partitions(self) -> InputSnapshots:
        return InputSnapshots(self._context.asset_partition_keys, self._frame, self._pair)

    def _times(self) -> SnapshotTimes:
        layout = PartitionLayout(self._partitions_def)
        keys, store = self._keys(), self._store
        partitions: defaultdict[str | None, dict[str, str]] = defaultdict(dict)
        for key in self._context.asset_partition_keys:
            partitions[layout.catalog_key(key)][keys.of(key)] = str(key)

        def in_time(file: tuple[str, str]) -> tuple[datetime, ...]:
            return layout.window(file[1]) or ()

        def snapshots_of(catalog: str | None) -> list[StoredSnapshot]:
            partition_of = partitions[catalog]
            folders = sorted({file.rpartition("/")[0] for file in partition_of})
            stored = {each.key: each for folder in folders for each in store.files(folder)}
            files = {key: partition_of[key] for key in partition_of.keys() & stored.keys()}
            return [
                StoredSnapshot(
                    functools.partial(store.open, key),
                    partition,
                    stored[key].modified.isoformat(),
                    key,
                )
                # The keys of a catalog's times come in any order.
                for key, partition in sorted(files.items(), key=in_time)
            ]

        return SnapshotTimes(snapshots_of)

    def _partition_files(self) -> dict[str, str]:
        partitions = list(self._context.asset_partition_keys)
        if self._has(ALLOW_MISSING):
            keys = self._keys()
            partitions = [each for each in partitions if self._store.exists(keys.of(each))]
        return {each: self._existing_key(each) for each in partitions}

    def _has(self, setting: str) -> bool:
        return bool((self._context.definition_metadata or {}).get(setting))

    def _one_frame(self, files: Mapping[str, str]) -> pl.LazyFrame:
        asset, column = self._context.asset_key.to_user_string(), self._partition_column
        if not files:
            raise _NotThereError(
                f"{asset} cannot be loaded: none of its partitions has a snapshot yet. Materialize "
                "one first."
            )

        def labelled(partition: str, frame: pl.LazyFrame) -> pl.LazyFrame:
            if column in frame.collect_schema():
                raise OctogenSnapshotError(
                    f"The partitions of {asset} cannot become one frame: they have a column "
                    f"{column!r} of their own. Give the IO manager another partition_column, or "
                    "load the partitions as a dict."
                )
            return frame.with_columns(pl.lit(partition).alias(column))

        return self._store.scan_together(files, labelled)

    def _existing_key(self, partition: str | None) -> str:
        key = self._keys().of(partition)
        if not self._store.exists(key):
            of = f", partition {partition!r}" if partition is not None else ""
            raise _NotThereError(
                f"The snapshot of {self._context.asset_key.to_user_string()}{of} does not exist "
                f"({self._store.uri(key)}). Materialize it first."
            )
        return key

    def _keys(self, partition: str | None = None) -> SnapshotKeys:
        return SnapshotKeys(self._store, self._context.asset_key, self._partitions_def, partition)


class _InputType:
    """The type as which an input is loaded; its annotation is `typing.Any` without one."""

    def __init__(self, asset: str, annotation: Any, *, partitioned: bool) -> None:
        self._asset = asset
        self.is_dict = get_origin(annotation) in (dict, Mapping)
        key, self._type = get_args(annotation) if self.is_dict else (str, annotation)
        self._is_pandas = _is(self._type, "pandas", "DataFrame")
        self._is_arrow = _is(self._type, "pyarrow", "Table")
        is_polars = self._type in (Any, pl.DataFrame, pl.LazyFrame)
        is_loaded = is_polars or self._is_pandas or self._is_arrow or self._type is Path
        if key is not str or not is_loaded:
            name = str(annotation).removeprefix("<class '").removesuffix("'>")
            raise TypeError(
                f"{asset} cannot be loaded as {name}. Annotate the input with {_LOADED}."
            )
        if self.is_dict and not partitioned:
            raise TypeError(
                f"{asset} has no partitions, so it cannot be loaded as a dict of them. Annotate "
                "the input with the type of the dict's values."
            )
        if self._is_pandas:
            try:
                importlib.import_module("pyarrow")
            except ImportError as error:
                raise MissingPackageError(
                    f"{asset} cannot be loaded as a pandas.DataFrame without pyarrow: pip install "
                    "pyarrow"
                ) from error

    def load(self, store: Store, key: str, *, pinned: bool = True) -> Any:
        """Return a snapshot that exists as the type, or as the type of each entry of the dict."""
        if self._type is not Path:
            return self.convert(store.scan(key, pinned=pinned))
        if not store.is_local:
            raise OctogenSnapshotError(
                f"{self._asset} cannot be loaded as a pathlib.Path: {store.uri(key)} is not on a "
                "disk. Annotate the input with a frame, such as pl.LazyFrame."
            )
        return Path(store.uri(key))

    def convert(self, frame: pl.LazyFrame) -> Any:
        """Return a frame of several partitions as the type."""
        if self._type is Path:
            raise TypeError(
                f"{self._asset} has several partitions, which are not one file. Annotate the input "
                "with dict[str, pathlib.Path]."
            )
        if self._type is pl.LazyFrame:
            return frame
        with errors_as_raised():
            collected = frame.collect()
        if self._is_pandas:
            return collected.to_pandas()
        return collected.to_arrow() if self._is_arrow else collected


def _is(wanted: Any, module: str, name: str) -> bool:
    """True for a type of a package that need not be installed."""
    return module in sys.modules and wanted is getattr(sys.modules[module], name, None)


def _partition(context: dg.InputContext) -> str | None:
    return context.partition_key if context.has_asset_partitions else None


def _check_without_partitions(context: dg.InputContext) -> None:
    """Check that an asset of which no partition is named has none."""
    with contextlib.suppress(dg.DagsterInvariantViolationError):  # it has none
        if context.asset_partitions_def:
            raise OctogenSnapshotError(
                f"{context.asset_key.to_user_string()} has partitions, and none is named: "
                "load_asset_value(..., partition_key=...) loads one."
            )
