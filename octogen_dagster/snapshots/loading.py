"""Loads snapshots as asset inputs."""

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

from octogen_dagster.assets.definition import (
    io_manager_key,
    keeps_snapshots,
    permanent_errors_fail,
    require_asset,
)
from octogen_dagster.errors import (
    MissingPackageError,
    OctogenSnapshotError,
    Persistence,
    dagster_private,
)
from octogen_dagster.frames.stored import StoredSnapshot
from octogen_dagster.io_source import collect_batches, errors_as_raised
from octogen_dagster.snapshots.partitions import PartitionLayout, SnapshotKeys
from octogen_dagster.snapshots.waiting import wait_for
from octogen_dagster.storage.store import MAX_OPEN_FILES

if TYPE_CHECKING:
    from octogen_dagster.storage.store import Store

BATCH_ROWS = 10_000
"""The number of rows in a batch when a file is read in batches."""
ALLOW_MISSING = "allow_missing_partitions"
_AS_SNAPSHOTS = "as_snapshots"
_LOADED = (
    "pl.LazyFrame, pl.DataFrame, pd.DataFrame, pyarrow.Table or pathlib.Path; for several "
    "partitions, with a dict[str, ...] that has one of these as its value type"
)
NEEDS_FILES = "The step needs snapshot files and metadata, which other IO managers do not store."
NEEDS_RANGE = (
    "A run of several partitions handles each partition separately. Without a "
    "backfill_policy, each partition gets its own run, which works with any IO manager."
)


def require_own(key: str, manager: Any, asset: str, why: str) -> None:
    """Fail the run without a retry if the IO manager is not a `ParquetSnapshotIOManager`."""
    if not keeps_snapshots(manager):
        raise _needs_own(key, manager, asset, why)


def _needs_own(key: str, manager: Any, asset: str, why: str) -> dg.Failure:
    return dg.Failure(
        f"{asset} needs a ParquetSnapshotIOManager, but the resource {key!r} is a "
        f"{type(manager).__name__}. {why} Add a resource such as "
        'snapshots=ParquetSnapshotIOManager(base_dir="snapshots"), and set '
        'io_manager_key="snapshots" on this asset and on its upstream products asset.',
        allow_retries=False,
    )


def snapshot_inputs(
    *, partition_mapping: dg.PartitionMapping | None = None, **assets: dg.AssetsDefinition
) -> dict[str, Any]:
    """Return the decorator arguments for an asset or a check whose inputs are snapshots.

    IO managers other than `ParquetSnapshotIOManager` have the limits described for `Snapshots`.

    Args:
        partition_mapping: Maps a partition to its input partitions. Defaults to the same partition.
        assets: The snapshot assets, by input name.

    Returns:
        The arguments `ins` and `resource_defs`.

    Raises:
        TypeError: An argument is not an asset.
    """
    ins, resources = dict[str, dg.AssetIn](), dict[str, dg.ResourceDefinition]()
    for name, asset in assets.items():
        require_asset(asset, name)
        key = io_manager_key(asset)
        # A separate input manager, because only our IO manager can load `Snapshots`.
        manager_key = f"octogen_{key}"
        ins[name] = dg.AssetIn(
            asset.key, partition_mapping=partition_mapping, input_manager_key=manager_key
        )
        resources[manager_key] = _input_manager(key)
        if key in asset.resource_defs:
            resources[key] = asset.resource_defs[key]
    return {"ins": ins, "resource_defs": resources}


def all_partitions(asset: dg.AssetsDefinition) -> dg.AssetIn:
    """Return an input for the snapshots of all partitions. Missing snapshots are skipped."""
    mapping = dg.AllPartitionMapping() if asset.partitions_def else None
    return dg.AssetIn(asset.key, partition_mapping=mapping, metadata={ALLOW_MISSING: True})


def table_by_key(key: dg.AssetKey) -> dg.AssetIn:
    """Return an input for an unpartitioned asset, which any IO manager can store.

    A `ParquetSnapshotIOManager` loads the asset as `Snapshots`. Any other IO manager loads the
    asset as a `polars.DataFrame`.
    """
    return dg.AssetIn(key, metadata={_AS_SNAPSHOTS: True}, dagster_type=_TABLE)


@functools.cache
def _input_manager(key: str) -> dg.ResourceDefinition:
    """Return an input manager that calls the IO manager with this resource key.

    The input manager is cached, because Dagster rejects different resources with the same key.
    """

    @dg.input_manager(required_resource_keys={key})
    def load(context: dg.InputContext) -> Any:
        manager = getattr(context.resources, key)
        if not keeps_snapshots(manager):
            return _OtherSnapshots(context, key, manager)
        with permanent_errors_fail():
            return manager.load_input(context)

    return load


class _CannotLoadError(OctogenSnapshotError):
    persistence = Persistence.PERMANENT


class _MissingSnapshotError(OctogenSnapshotError):
    persistence = Persistence.PERMANENT


class _AsFrame(dg.InputContext):
    """An input that any IO manager loads as a Polars DataFrame."""

    def __init__(self, context: dg.InputContext, manager_key: str) -> None:
        vars(self).update(vars(context))
        self._manager_key = manager_key

    @property
    def dagster_type(self) -> dg.DagsterType:
        return dg.PythonObjectDagsterType(pl.DataFrame)

    @property
    def resource_config(self) -> Mapping[str, Any]:
        """The configuration of the IO manager, not of the input manager."""
        run_config = dagster_private(self.step_context, "resolved_run_config")
        config: Mapping[str, Any] = run_config.resources[self._manager_key].config
        return config


class SnapshotFile(NamedTuple):
    """A stored snapshot.

    Attributes:
        frame: The rows.
        metadata: The file's metadata, such as `octogen.search`.
        is_local: True for a file on disk, False for an object in a bucket.
    """

    frame: pl.LazyFrame
    metadata: Mapping[str, str]
    is_local: bool

    @property
    def row_count(self) -> int:
        """The number of rows. Only the file's footer is read."""
        return int(self.frame.select(pl.len()).collect().item())

    def batches(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Iterator[pl.DataFrame]:
        """Run a query on one batch of rows at a time to save memory.

        Args:
            query: A function that takes a lazy frame and returns the wanted rows and columns. It
                must work row by row, because a batch contains at most 10,000 rows.
        """
        frame, rows = query(self.frame), self.row_count
        if not self.is_local:  # a slice of an object is read from the object's beginning
            yield from collect_batches(frame, BATCH_ROWS, engine="streaming", lazy=True)
            return
        # Takes half the memory of Polars' own batches for a million products.
        for first in range(0, max(rows, 1), BATCH_ROWS):
            yield frame.slice(first, BATCH_ROWS).collect()


class Snapshots:
    """An input's snapshots, opened on demand.

    If the IO manager is a `ParquetSnapshotIOManager`, an input annotated with `Snapshots`
    contains the partitions that are mapped to the run's partitions. Each frame keeps a file open,
    so open many partitions one after another.

    Methods take a partition key, or None for an asset without partitions. They raise
    `OctogenSnapshotError` if a snapshot does not exist, is damaged or cannot be reached.

    Other IO managers load whole frames. If the input comes from `snapshot_inputs`, `frame` and
    `frames` work with these IO managers too, but the other methods fail the run.

    Attributes:
        has_each: False if the IO manager returns several partitions only as one frame.
        partition_column: The column that contains the partition key in a frame with several
            partitions.
    """

    has_each = True

    def __init__(self, context: dg.InputContext, store: Store, partition_column: str) -> None:
        self._context = context
        self._store = store
        self.partition_column = partition_column

    @functools.cached_property
    def partitions(self) -> Sequence[str]:
        """The input's partition keys; empty for an asset without partitions."""
        return self._context.asset_partition_keys if self._context.has_asset_partitions else ()

    def frame(self, partition: str | None) -> pl.LazyFrame:
        """Open a partition's snapshot as a lazy frame, pinned to the file's current version.

        If `partition` is None, the frame contains the rows from all the input's partitions, and the
        column `partition_column` contains the partition keys.
        """
        if partition is None and self._context.has_asset_partitions:
            return self._combined(self._files())
        return self._store.scan(self._existing_key(partition))

    def frames(self) -> list[pl.LazyFrame]:
        """Return lazy frames that together contain all the input's partitions.

        Files are combined, so that a query over hundreds of files neither hangs nor keeps all files
        open. A missing snapshot raises an error, unless the input's metadata sets
        `allow_missing_partitions`. In that case, the snapshot is skipped, and the list can be
        empty.
        """
        files = self._files()
        return [self._store.scan_together(files)] if files else []

    def metadata(self) -> dict[str, Mapping[str, str]]:
        """Return the file metadata for each partition in `frames`."""
        return {name: self._store.metadata(key) for name, key in self._files().items()}

    def file(self, partition: str | None) -> SnapshotFile:
        """Open a partition's snapshot with its file metadata."""
        frame, metadata = self._store.open(self._existing_key(partition))
        return SnapshotFile(frame, metadata, self._store.is_local)

    def of_catalog(self, catalog: str | None) -> list[StoredSnapshot]:
        """List a catalog's existing snapshots, oldest first.

        If the asset has no time partitions, a catalog has at most one snapshot.

        Args:
            catalog: The catalog's partition key, or None if the asset has no catalog partitions.
        """
        if self._layout.times is None:
            opened = self._store.open(self._existing_key(catalog))
            return [StoredSnapshot(lambda: opened)]
        partitions = {self._key(each): each for each in self._of_catalogs[catalog]}
        folders = sorted({key.rpartition("/")[0] for key in partitions})
        files = {each.key: each for folder in folders for each in self._store.files(folder)}
        # A catalog's partitions are in no particular order.
        in_time = sorted(partitions, key=lambda key: self._layout.window(partitions[key]) or ())
        return [
            StoredSnapshot(
                functools.partial(self._store.open, key),
                str(partitions[key]),
                files[key].modified.isoformat(),
            )
            for key in in_time
            if key in files
        ]

    def unread(
        self, catalog: str | None, history: dg.AssetKey
    ) -> tuple[list[StoredSnapshot], Callable[[], None]]:
        """Return a history's unread snapshots, and a function to call after they are read.

        The function deletes the copies of replaced snapshots. If the asset has no time partitions,
        the list contains the current snapshot, followed by the snapshots that were replaced since
        the history's last run, newest first. After this call, snapshots that are replaced are kept
        for the history's next run.

        Args:
            catalog: The catalog's partition key, or None if the asset has no catalog partitions.
            history: The history's asset key.
        """
        if self._layout.times is not None:
            return self.of_catalog(catalog), lambda: None
        list_waiting = wait_for(self._store, self._existing_key(catalog), history.to_user_string())
        # The current snapshot is opened first. If it is replaced now, the list contains it as well.
        present, waiting = self.of_catalog(catalog), list_waiting()
        opened = (functools.partial(self._store.open, key) for key in reversed(waiting))
        remove = functools.partial(self._store.delete, waiting)
        return [*present, *map(StoredSnapshot, opened)], remove

    @property
    def _partitions_def(self) -> dg.PartitionsDefinition[Any] | None:
        context = self._context
        return context.asset_partitions_def if context.has_asset_partitions else None

    @functools.cached_property
    def _layout(self) -> PartitionLayout:
        return PartitionLayout(self._partitions_def)

    @functools.cached_property
    def _of_catalogs(self) -> Mapping[str | None, Sequence[str]]:
        found: defaultdict[str | None, list[str]] = defaultdict(list)
        for partition in self.partitions:
            found[self._layout.catalog_key(partition)].append(partition)
        return found

    def _combined(self, files: Mapping[str, str]) -> pl.LazyFrame:
        asset, column = self._context.asset_key.to_user_string(), self.partition_column
        if not files:
            raise _MissingSnapshotError(
                f"{asset} cannot be loaded, because none of its partitions has a snapshot yet. "
                "Materialize one first."
            )

        def labelled(partition: str, frame: pl.LazyFrame) -> pl.LazyFrame:
            if column in frame.collect_schema():
                raise _CannotLoadError(
                    f"The partitions of {asset} cannot be combined into one frame, because they "
                    f"already have a column {column!r}. Set a different `partition_column` on the "
                    "IO manager, or load the partitions as a dict."
                )
            return frame.with_columns(pl.lit(partition).alias(column))

        return self._store.scan_together(files, labelled)

    def _files(self) -> dict[str, str]:
        """Return each partition's store key. Without partitions, the only dict key is ""."""
        context, partitions = self._context, self.partitions
        if not context.has_asset_partitions:
            return {"": self._existing_key(None)}
        if (context.definition_metadata or {}).get(ALLOW_MISSING):
            partitions = [each for each in partitions if self._store.exists(self._key(each))]
        return {each: self._existing_key(each) for each in partitions}

    def _key(self, partition: str | None) -> str:
        return SnapshotKeys(self._store, self._context.asset_key).of(partition)

    def _existing_key(self, partition: str | None) -> str:
        key = self._key(partition)
        if not self._store.exists(key):
            part = f", partition {partition!r}" if partition is not None else ""
            raise _MissingSnapshotError(
                f"The snapshot of {self._context.asset_key.to_user_string()}{part} does not exist "
                f"({self._store.uri(key)}). Materialize it first."
            )
        return key


_TABLE = dg.DagsterType(
    lambda _context, value: isinstance(value, Snapshots | pl.DataFrame),
    name="SnapshotsOrDataFrame",
    typing_type=pl.DataFrame,
)


class _OtherSnapshots(Snapshots):
    """Snapshots loaded by another IO manager, with all partitions in one frame."""

    has_each = False

    def __init__(self, context: dg.InputContext, key: str, manager: Any) -> None:
        self._context, self._manager_key, self._manager = context, key, manager
        # Loaded eagerly, because Dagster reports an IO manager's input metadata only at this point.
        # The type is not checked here, because unsupported methods raise their own errors.
        self._result: Any = manager.load_input(_AsFrame(context, key))

    @property
    def _loaded(self) -> pl.LazyFrame:
        frame: pl.DataFrame = self._result
        return frame.lazy()

    def frame(self, partition: str | None) -> pl.LazyFrame:
        if partition is not None and len(self.partitions) > 1:
            raise self._needs_own(NEEDS_RANGE)
        return self._loaded

    def frames(self) -> list[pl.LazyFrame]:
        return [self._loaded]

    def metadata(self) -> dict[str, Mapping[str, str]]:
        raise self._needs_own(NEEDS_FILES)

    def file(self, partition: str | None) -> SnapshotFile:
        raise self._needs_own("The step reads the rows in batches and needs the snapshot's ID.")

    def of_catalog(self, catalog: str | None) -> list[StoredSnapshot]:
        raise self._needs_own(NEEDS_FILES)

    def unread(self, catalog: str | None, history: dg.AssetKey) -> Any:
        raise self._needs_own(NEEDS_FILES)

    def _needs_own(self, why: str) -> dg.Failure:
        return _needs_own(self._manager_key, self._manager, self._context.op_def.name, why)


def load_snapshots(context: dg.InputContext, store: Store, partition_column: str) -> Any:
    """Load an input's snapshots as its annotated type."""
    snapshots = Snapshots(context, store, partition_column)
    annotation = context.dagster_type.typing_type
    partitioned = context.has_asset_partitions
    if annotation is Snapshots:
        return snapshots
    if not partitioned:
        _check_without_partitions(context)
        if (context.definition_metadata or {}).get(_AS_SNAPSHOTS):
            return snapshots
    asset = context.asset_key.to_user_string()
    wanted = _InputType(asset, annotation, partitioned=partitioned)
    files = snapshots._files()
    if wanted.is_dict:
        pinned = len(files) <= MAX_OPEN_FILES
        return {name: wanted.load(store, key, pinned=pinned) for name, key in files.items()}
    if not partitioned or (context.has_partition_key and list(files) == [context.partition_key]):
        return wanted.load(store, next(iter(files.values())))
    return wanted.convert(snapshots._combined(files))


class _InputType:
    """An input's annotated type. Without an annotation, the type is `typing.Any`."""

    def __init__(self, asset: str, annotation: Any, *, partitioned: bool) -> None:
        self._asset = asset
        self.is_dict = get_origin(annotation) in (dict, Mapping)
        key, self._type = get_args(annotation) if self.is_dict else (str, annotation)
        self._is_pandas = _is_type(self._type, "pandas", "DataFrame")
        self._is_arrow = _is_type(self._type, "pyarrow", "Table")
        is_polars = self._type in (Any, pl.DataFrame, pl.LazyFrame)
        is_loaded = is_polars or self._is_pandas or self._is_arrow or self._type is Path
        if key is not str or not is_loaded:
            name = str(annotation).removeprefix("<class '").removesuffix("'>")
            raise TypeError(
                f"{asset} cannot be loaded as {name}. Annotate the input with {_LOADED}."
            )
        if self.is_dict and not partitioned:
            raise TypeError(
                f"{asset} has no partitions, so it cannot be loaded as a dict. Annotate the input "
                "with the dict's value type."
            )
        if self._is_pandas:
            try:
                importlib.import_module("pyarrow")
            except ImportError as error:
                raise MissingPackageError(
                    f"Loading {asset} as a pandas.DataFrame requires pyarrow. Add pyarrow to your "
                    "project's dependencies."
                ) from error

    def load(self, store: Store, key: str, *, pinned: bool = True) -> Any:
        """Load one snapshot as the annotated type, or as the value type of an annotated dict."""
        if self._type is not Path:
            return self.convert(store.scan(key, pinned=pinned))
        if not store.is_local:
            raise _CannotLoadError(
                f"{self._asset} cannot be loaded as a pathlib.Path, because {store.uri(key)} is "
                "not a local file. Annotate the input with a frame type, such as pl.LazyFrame."
            )
        return Path(store.uri(key))

    def convert(self, frame: pl.LazyFrame) -> Any:
        if self._type is Path:
            raise TypeError(
                f"{self._asset} has several partitions, each in a separate file. Annotate the "
                "input with dict[str, pathlib.Path]."
            )
        if self._type is pl.LazyFrame:
            return frame
        with errors_as_raised():
            collected = frame.collect()
        if self._is_pandas:
            return collected.to_pandas()
        return collected.to_arrow() if self._is_arrow else collected


def _is_type(wanted: Any, module: str, name: str) -> bool:
    """Return True if `wanted` is the type `name` in `module`, without importing the module."""
    return module in sys.modules and wanted is getattr(sys.modules[module], name, None)


def _check_without_partitions(context: dg.InputContext) -> None:
    """Raise an error if the asset has partitions but no partition key was passed."""
    with contextlib.suppress(dg.DagsterInvariantViolationError):  # it has no partitions
        if context.asset_partitions_def:
            raise _CannotLoadError(
                f"{context.asset_key.to_user_string()} has partitions. Pass a partition key: "
                "load_asset_value(..., partition_key=...)."
            )
