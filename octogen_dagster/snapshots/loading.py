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
"""Rows of a file that are in memory at the same time where it is read in batches."""
ALLOW_MISSING = "allow_missing_partitions"
_AS_SNAPSHOTS = "as_snapshots"
_LOADED = (
    "pl.LazyFrame, pl.DataFrame, pd.DataFrame, pyarrow.Table, pathlib.Path, dict[str, ...] of one "
    "of these for several partitions"
)
NEEDS_FILES = "it is made from files and their metadata, which no other IO manager keeps"
NEEDS_RANGE = (
    "a run of several partitions takes each by itself (without a backfill_policy each has a run of "
    "its own)"
)


def require_own(key: str, manager: Any, asset: str, why: str) -> None:
    """Fail the run, without a retry, if an IO manager is none that keeps snapshots."""
    if not keeps_snapshots(manager):
        raise _needs_own(key, manager, asset, why)


def _needs_own(key: str, manager: Any, asset: str, why: str) -> dg.Failure:
    return dg.Failure(
        f"{asset} needs a ParquetSnapshotIOManager, and the resource {key!r} is a "
        f"{type(manager).__name__}: {why}. Add a resource such as "
        'snapshots=ParquetSnapshotIOManager(base_dir="snapshots"), and give '
        'io_manager_key="snapshots" to this asset and to the products that it is made from.',
        allow_retries=False,
    )


def snapshot_inputs(
    *, partition_mapping: dg.PartitionMapping | None = None, **assets: dg.AssetsDefinition
) -> dict[str, Any]:
    """The arguments of an asset, or of checks, that has the snapshots of assets as its inputs.

    Other IO managers than `ParquetSnapshotIOManager` load them, too: `Snapshots` says how far.

    Args:
        partition_mapping: The partitions of the inputs for each partition; by default the same.
        assets: The assets of the snapshots, by the names of the inputs.

    Returns:
        The arguments `ins` and `resource_defs`.

    Raises:
        TypeError: What is given is no asset.
    """
    ins, resources = dict[str, dg.AssetIn](), dict[str, dg.ResourceDefinition]()
    for name, asset in assets.items():
        require_asset(asset, name)
        key = io_manager_key(asset)
        # The input has a manager of its own, since Dagster lets no other IO manager than ours load
        # `Snapshots`.
        manager_key = f"octogen_{key}"
        ins[name] = dg.AssetIn(
            asset.key, partition_mapping=partition_mapping, input_manager_key=manager_key
        )
        resources[manager_key] = _input_manager(key)
        if key in asset.resource_defs:
            resources[key] = asset.resource_defs[key]
    return {"ins": ins, "resource_defs": resources}


def all_partitions(asset: dg.AssetsDefinition) -> dg.AssetIn:
    """The input of an asset that has the snapshots of all partitions that there are."""
    mapping = dg.AllPartitionMapping() if asset.partitions_def else None
    return dg.AssetIn(asset.key, partition_mapping=mapping, metadata={ALLOW_MISSING: True})


def table_by_key(key: dg.AssetKey) -> dg.AssetIn:
    """The input of an asset without partitions that any IO manager may store.

    A `ParquetSnapshotIOManager` loads it as `Snapshots`, any other as a `polars.DataFrame`.
    """
    return dg.AssetIn(key, metadata={_AS_SNAPSHOTS: True}, dagster_type=_TABLE)


@functools.cache
def _input_manager(key: str) -> dg.ResourceDefinition:
    """Load inputs by the IO manager of a key; it is cached, since Dagster compares resources."""

    @dg.input_manager(required_resource_keys={key})
    def load(context: dg.InputContext) -> Any:
        manager = getattr(context.resources, key)
        if not keeps_snapshots(manager):
            return _OtherSnapshots(context, key, manager)
        with permanent_errors_fail():
            return manager.load_input(context)

    return load


class _CannotLoadError(OctogenSnapshotError):
    """Snapshots cannot be loaded as they are asked for."""

    persistence = Persistence.PERMANENT


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
        """The configuration of the IO manager, and not of this input's own manager."""
        run_config = dagster_private(self.step_context, "resolved_run_config")
        config: Mapping[str, Any] = run_config.resources[self._manager_key].config
        return config


class SnapshotFile(NamedTuple):
    """A snapshot as it is stored.

    Attributes:
        frame: Its rows.
        metadata: The metadata of its file, such as `octogen.search`.
        is_local: True for a file on a disk, False for one in a bucket.
    """

    frame: pl.LazyFrame
    metadata: Mapping[str, str]
    is_local: bool

    @property
    def row_count(self) -> int:
        """The number of its rows, which the end of the file says."""
        return int(self.frame.select(pl.len()).collect().item())

    def batches(self, query: Callable[[pl.LazyFrame], pl.LazyFrame]) -> Iterator[pl.DataFrame]:
        """Execute a query of the rows on one batch of them after the other, to save memory.

        Args:
            query: Takes the rows of a batch, of which there are up to 10,000, and returns what is
                wanted of them.
        """
        frame, rows = query(self.frame), self.row_count
        if not self.is_local:  # an object is read from its beginning for each slice
            yield from collect_batches(frame, BATCH_ROWS, engine="streaming", lazy=True)
            return
        # Less memory than Polars' own batches: half of it for a million products.
        for first in range(0, max(rows, 1), BATCH_ROWS):
            yield frame.slice(first, BATCH_ROWS).collect()


class Snapshots:
    """The snapshots of an input, each of which is opened when it is asked for.

    An input that is annotated with this class is loaded as it by a `ParquetSnapshotIOManager`. It
    has the snapshots of the partitions that are mapped to those of the run. A frame keeps its file
    open, so a run of many partitions holds one after the other.

    A method takes the key of a partition, or None for an asset without partitions. It raises an
    `OctogenSnapshotError` if there is no snapshot, or if its file is damaged or out of reach.

    Another IO manager than `ParquetSnapshotIOManager` loads whole frames: with an input of
    `snapshot_inputs` it has `frame` and `frames`, and the other methods fail the run.

    Attributes:
        has_each: False if an IO manager gives the rows of several partitions only together.
        partition_column: The column that tells partitions apart where they are together.
    """

    has_each = True

    def __init__(self, context: dg.InputContext, store: Store, partition_column: str) -> None:
        self._context = context
        self._store = store
        self.partition_column = partition_column

    @functools.cached_property
    def partitions(self) -> Sequence[str]:
        """The keys of the input's partitions; none for an asset without partitions."""
        return self._context.asset_partition_keys if self._context.has_asset_partitions else ()

    def frame(self, partition: str | None) -> pl.LazyFrame:
        """Open the snapshot of a partition as a lazy frame, which is of one state of the file.

        With None it has the rows of all of the input's partitions, with the key of each in the
        column `partition_column`.
        """
        if partition is None and self._context.has_asset_partitions:
            return self._together(self._files())
        return self._store.scan(self._existing_key(partition))

    def frames(self) -> list[pl.LazyFrame]:
        """Open the snapshots of all of the input's partitions, as few lazy frames to concatenate.

        Files are put together, so that a query of hundreds of them neither waits for ever nor keeps
        all of them open. A partition without a snapshot is an error, unless the input's metadata
        sets `allow_missing_partitions`: then it is left out, and the list may be empty.
        """
        files = self._files()
        return [self._store.scan_together(files)] if files else []

    def metadata(self) -> dict[str, Mapping[str, str]]:
        """The metadata of the file of each partition that `frames` opens."""
        return {name: self._store.metadata(key) for name, key in self._files().items()}

    def file(self, partition: str | None) -> SnapshotFile:
        """Open the snapshot of a partition with the metadata of its file."""
        frame, metadata = self._store.open(self._existing_key(partition))
        return SnapshotFile(frame, metadata, self._store.is_local)

    def of_catalog(self, catalog: str | None) -> list[StoredSnapshot]:
        """List the snapshots of a catalog that exist, the oldest time first.

        Without partitions of time there is one.

        Args:
            catalog: The key of the catalog in the partitions; None without partitions of catalogs.
        """
        if self._layout.times is None:
            opened = self._store.open(self._existing_key(catalog))
            return [StoredSnapshot(lambda: opened)]
        partitions = {self._key(each): each for each in self._of_catalogs[catalog]}
        folders = sorted({key.rpartition("/")[0] for key in partitions})
        files = {each.key: each for folder in folders for each in self._store.files(folder)}
        # The keys of a catalog's times come in any order.
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
        """List the snapshots of a catalog for a history, and return what removes the waiting ones.

        Without partitions of time they are the present one, and then those that were replaced since
        the history ran last, the newest first. From now on they are kept for its next run.

        Args:
            catalog: The key of the catalog in the partitions; None without partitions of catalogs.
            history: The key of the history's asset.
        """
        if self._layout.times is not None:
            return self.of_catalog(catalog), lambda: None
        list_waiting = wait_for(self._store, self._existing_key(catalog), history.to_user_string())
        # In this order no snapshot is missed: the present one waits from when it is replaced.
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
        """The partitions of each catalog."""
        found: defaultdict[str | None, list[str]] = defaultdict(list)
        for partition in self.partitions:
            found[self._layout.catalog_key(partition)].append(partition)
        return found

    def _together(self, files: Mapping[str, str]) -> pl.LazyFrame:
        asset, column = self._context.asset_key.to_user_string(), self.partition_column
        if not files:
            raise _NotThereError(
                f"{asset} cannot be loaded: none of its partitions has a snapshot yet. Materialize "
                "one first."
            )

        def labelled(partition: str, frame: pl.LazyFrame) -> pl.LazyFrame:
            if column in frame.collect_schema():
                raise _CannotLoadError(
                    f"The partitions of {asset} cannot become one frame: they have a column "
                    f"{column!r} of their own. Give the IO manager another partition_column, or "
                    "load the partitions as a dict."
                )
            return frame.with_columns(pl.lit(partition).alias(column))

        return self._store.scan_together(files, labelled)

    def _files(self) -> dict[str, str]:
        """The keys of the snapshots' files by partition; without partitions of the only one."""
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
            of = f", partition {partition!r}" if partition is not None else ""
            raise _NotThereError(
                f"The snapshot of {self._context.asset_key.to_user_string()}{of} does not exist "
                f"({self._store.uri(key)}). Materialize it first."
            )
        return key


_TABLE = dg.DagsterType(
    lambda _context, value: isinstance(value, Snapshots | pl.DataFrame),
    name="SnapshotsOrDataFrame",
    typing_type=pl.DataFrame,
)


class _OtherSnapshots(Snapshots):
    """The snapshots that another IO manager loads, all of an input's partitions as one frame."""

    has_each = False

    def __init__(self, context: dg.InputContext, key: str, manager: Any) -> None:
        self._context, self._manager_key, self._manager = context, key, manager
        # Dagster reports what an IO manager says of an input only while the input is loaded.
        # What cannot work with any other IO manager says so whatever this one gives.
        self._given: Any = manager.load_input(_AsFrame(context, key))

    @property
    def _loaded(self) -> pl.LazyFrame:
        frame: pl.DataFrame = self._given
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
        raise self._needs_own("its rows are read in batches, with the id of their snapshot")

    def of_catalog(self, catalog: str | None) -> list[StoredSnapshot]:
        raise self._needs_own(NEEDS_FILES)

    def unread(self, catalog: str | None, history: dg.AssetKey) -> Any:
        raise self._needs_own(NEEDS_FILES)

    def _needs_own(self, why: str) -> dg.Failure:
        return _needs_own(self._manager_key, self._manager, self._context.op_def.name, why)


def load_snapshots(context: dg.InputContext, store: Store, partition_column: str) -> Any:
    """Load the snapshots of an input as what it is annotated with."""
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
    return wanted.convert(snapshots._together(files))


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
            raise _CannotLoadError(
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


def _check_without_partitions(context: dg.InputContext) -> None:
    """Check that an asset of which no partition is named has none."""
    with contextlib.suppress(dg.DagsterInvariantViolationError):  # it has none
        if context.asset_partitions_def:
            raise _CannotLoadError(
                f"{context.asset_key.to_user_string()} has partitions, and none is named: "
                "load_asset_value(..., partition_key=...) loads one."
            )
