"""The IO manager that stores each asset or partition as one complete Parquet file."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import dagster as dg
import polars as pl
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from octogen_dagster.asset_definition import canceling_ends, permanent_errors_fail, takes_range
from octogen_dagster.errors import MissingPackageError, OctogenSnapshotError
from octogen_dagster.frames.changes import SnapshotPair
from octogen_dagster.frames.observed import SnapshotTimes, StoredSnapshot
from octogen_dagster.frames.pages import RESUME_WITHIN
from octogen_dagster.python_source import errors_as_raised
from octogen_dagster.run_budget import shared_budget
from octogen_dagster.snapshots.partitions import PartitionLayout, SnapshotKeys
from octogen_dagster.snapshots.publication import (
    RETURNED,
    Failures,
    Publication,
    PublishingStep,
    materialization,
    reported_before,
    snapshot_source,
)
from octogen_dagster.store import Store, check_base_dir, previous_of
from octogen_dagster.validation import refuse_unknown_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from octogen_dagster.frames.source import SnapshotSource

MAX_OPEN_FILES = 100
"""Partitions in one frame whose files are kept open; those of a larger frame are opened by name."""
ALLOW_MISSING = "allow_missing_partitions"
_LOADED = (
    "pl.LazyFrame, pl.DataFrame, pd.DataFrame, pyarrow.Table, pathlib.Path, dict[str, ...] of one "
    "of these for several partitions, or SnapshotPair"
)


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


def input_kind(asset: dg.AssetsDefinition, kind: type, policy: dg.BackfillPolicy | None) -> type:
    """What the snapshots of an asset are loaded as in a step with its partitions and this policy.

    It is the kind, or `InputSnapshots` if a run may have several partitions.
    """
    return InputSnapshots if takes_range(policy, asset.partitions_def) else kind


def frame_of(snapshots: pl.LazyFrame | InputSnapshots, partition: str | None) -> pl.LazyFrame:
    """The snapshot of a partition of an input."""
    return snapshots.frame(partition) if isinstance(snapshots, InputSnapshots) else snapshots


def pair_of(snapshots: SnapshotPair | InputSnapshots, partition: str | None) -> SnapshotPair:
    """The snapshot of a partition of an input, with the one before it."""
    return snapshots.pair(partition) if isinstance(snapshots, InputSnapshots) else snapshots


class ParquetSnapshotIOManager(dg.ConfigurableIOManager):
    """Stores frames as Parquet snapshots and loads them.

    An asset may return a `polars.LazyFrame` (streamed), a `polars.DataFrame`, a `pandas.DataFrame`
    (with its index, if that has a name), a `pyarrow.Table`, or the result of
    `OctogenResource.scan`; in a run of several partitions, a dict of these by partition key. The
    file is written to a temporary name, its footer is read back, and only then does it replace the
    previous snapshot. An asset `a/b` is stored as `<base_dir>/a/b.parquet` and its partition `k` as
    `<base_dir>/a/b/k.parquet`. Characters that are not safe in a path are percent-encoded.

    The pages of a search are saved beside the snapshot while they are read, so the next run of the
    same partition continues a run that died. They are removed when the snapshot is published. The
    replaced snapshot of a products asset is kept until the next one is published, unless the asset
    has time partitions.

    An input may be annotated `pl.DataFrame` (as one without annotation is loaded), `pl.LazyFrame`,
    `pd.DataFrame`, `pyarrow.Table`, `pathlib.Path` (of the file on a disk), or `dict[str, ...]` of
    one of these, which has an entry for each partition key. The partition with the run's own key is
    loaded as it was stored. Any other partitions, even a single one, become one frame with the key
    in the column `partition_column`. A partition without a snapshot is an error, unless the input's
    metadata sets `allow_missing_partitions`. A `SnapshotPair` is the snapshot of the run's own
    partition with the last snapshot of the 31 times before it, or with the snapshot that it
    replaced.
    """

    base_dir: str = Field(
        description="A folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the object store, as of obstore and Polars, such as aws_region; a "
        "secret among them is a dg.EnvVar.",
    )
    partition_column: str = Field(
        default="partition", description="The column that tells partitions in one frame apart."
    )
    resume_within_hours: float = Field(
        default=RESUME_WITHIN / timedelta(hours=1),
        ge=0,
        description="Hours for which a read that died is continued; with 0 no pages are saved.",
    )
    _store: Store | None = PrivateAttr(default=None)
    model_config = ConfigDict(hide_input_in_errors=True)

    _refuse_unknown = model_validator(mode="wrap")(refuse_unknown_settings)

    @field_validator("base_dir")
    @classmethod
    def _check_base_dir(cls, base_dir: str) -> str:
        if _variable(base_dir) is None:
            check_base_dir(base_dir)
        return base_dir

    @field_validator("storage_options")
    @classmethod
    def _check_storage_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        from octogen_dagster.buckets import is_secret

        for name, value in options.items():
            if _variable(value) is None and is_secret(name, value):
                raise ValueError(
                    f"The storage option {name} looks like a secret, and Dagster would show it in "
                    f'the UI. Set an environment variable and write "{name}": '
                    'dg.EnvVar("NAME_OF_THE_VARIABLE"), in YAML "{{ env.NAME_OF_THE_VARIABLE }}", '
                    "instead of its value, or leave the option "
                    "out and let the object store's library find its credentials."
                )
        return options

    @property
    def store(self) -> Store:
        """The folder or bucket that all snapshots are stored in.

        Raises:
            OctogenSnapshotError: An environment variable of the options is not set.
            ValueError: base_dir is empty or of an unknown kind, or an option is not known.
        """
        if self._store is None:
            options = {name: _resolved(value) for name, value in self.storage_options.items()}
            self._store = Store(self.base_dir, options)
        return self._store

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Publish a snapshot, or one for each partition, and add its metadata to what is reported.

        Args:
            context: The context of the asset's output.
            obj: A frame or a scan; of a run of several partitions, a dict of them by partition key.

        Raises:
            OctogenError: The read fails.
            OctogenSnapshotError: The place cannot be written to, or the read was not complete.
            dagster.Failure: The read failed and a retry cannot help, or some partitions failed.
            TypeError: The asset returned neither a frame nor a scan, or no dict for several
                partitions.
            MissingPackageError: It returned a `pandas.DataFrame`, and pyarrow is not installed.
        """
        run = _run_of(context)
        with canceling_ends(run.instance, run.run_id):
            self._publish_output(context, obj, run)

    def _publish_output(self, context: dg.OutputContext, obj: Any, run: PublishingStep) -> None:
        partitions = _partitions(context)
        if len(partitions) > 1 or (isinstance(obj, Mapping) and None not in partitions):
            self._publish_each(context, partitions, obj)
            return
        source = snapshot_source(context.asset_key, obj)
        with permanent_errors_fail(), shared_budget(*run, source.spending, context.log):
            place = self._publication(context, _partitions_def(context), partitions[0], run)
            published = place.publish(source, threading.Event())
            published.remove_pages()
        _add_metadata(context, published.metadata)

    def _publish_each(
        self, context: dg.OutputContext, partitions: Sequence[str | None], made: Any
    ) -> None:
        """Publish the partitions of a run, each from its entry of a dict.

        Dagster reports all of them at the end if the step succeeds. If one fails, those that are
        published are reported here, and a retry leaves them as they are.
        """
        sources = _by_partition(context, partitions, made)
        run = _run_of(context)
        reported = {} if run.instance is None else reported_before(run, context.asset_key)
        failures, untried = Failures(context.asset_key, context.log), list[str]()
        spending = next((each.spending for each in sources.values() if each.spending), None)
        all_metadata: dict[str, Mapping[str, Any]] = {}
        stop = threading.Event()
        with shared_budget(*run, spending, context.log) as tell:
            for partition, source in sources.items():
                if partition in reported:
                    all_metadata[partition] = reported[partition].metadata
                    continue
                if failures.end:
                    untried.append(partition)
                    continue
                place = self._publication(context, _partitions_def(context), partition, run)
                try:
                    with permanent_errors_fail():
                        published = place.publish(source, stop)
                except Exception as error:
                    failures.add(partition, error)
                else:
                    failures.passed()
                    all_metadata[partition] = published.metadata
                    published.remove_pages()
                tell()
        for partition, metadata in all_metadata.items():
            if not failures:
                _add_metadata(context, metadata, partition)
            elif partition not in reported:
                context.log_event(
                    materialization(context.asset_key, partition, metadata, run.run_id)
                )
        failures.raise_any(len(sources), untried)

    def _publication(
        self,
        context: dg.OutputContext | dg.AssetExecutionContext,
        partitions_def: dg.PartitionsDefinition[Any] | None,
        partition: str | None,
        run: PublishingStep,
        warn: Callable[[str], None] | None = None,
    ) -> Publication:
        places = SnapshotKeys(self.store, context.asset_key, partitions_def, partition)
        resume_within = timedelta(hours=self.resume_within_hours)
        return Publication(places, run, context.log, resume_within, warn)

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the snapshots of an input as the type that it is annotated with.

        Args:
            context: The context of the input.

        Raises:
            OctogenSnapshotError: A snapshot does not exist, is damaged, or is in a bucket where the
                annotation is a path; or no partition is named, outside of a run.
            TypeError: Snapshots are not loaded as the type, or not those of this asset.
            MissingPackageError: The annotation is `pd.DataFrame`, and pyarrow is not installed.
        """
        annotation = context.dagster_type.typing_type
        several: dict[Any, Callable[[dg.InputContext], Any]] = {
            InputSnapshots: self._load_partitions,
            SnapshotTimes: self._load_times,
            SnapshotPair: lambda each: self._load_pair(each, _partition(each)),
        }
        if annotation in several:
            return several[annotation](context)
        partitioned = context.has_asset_partitions
        if not partitioned:
            _check_without_partitions(context)
        wanted = _InputType(context.asset_key.to_user_string(), annotation, partitioned=partitioned)
        if not partitioned:
            return wanted.load(self.store, self._existing_key(context, None))
        files = self._partition_files(context)
        pinned = len(files) <= MAX_OPEN_FILES
        if wanted.is_dict:
            return {
                partition: wanted.load(self.store, key, pinned=pinned)
                for partition, key in files.items()
            }
        if context.has_partition_key and list(files) == [context.partition_key]:
            return wanted.load(self.store, next(iter(files.values())))
        frames = {
            partition: self.store.scan(key, pinned=pinned) for partition, key in files.items()
        }
        return wanted.convert(self._one_frame(context, frames))

    def _open(self, context: dg.InputContext, partition: str | None) -> pl.LazyFrame:
        return self.store.scan(self._existing_key(context, partition))

    def _load_pair(self, context: dg.InputContext, partition: str | None) -> SnapshotPair:
        places = self._places(context, partition)
        before = None
        key: str | None = previous_of(places.own)
        if places.has_times:
            before = places.partition_before()
            key = None if before is None else places.of(before)
        # The previous snapshot is opened first. If a run publishes in between, the pair spans two
        # publications; in the other order it could compare a snapshot with itself.
        is_there = key is not None and self.store.exists(key)
        previous, previous_file_metadata = self.store.open(key) if key and is_there else (None, {})
        current, file_metadata = self.store.open(self._existing_key(context, partition))
        return SnapshotPair(current, previous, before, file_metadata, previous_file_metadata)

    def _load_partitions(self, context: dg.InputContext) -> InputSnapshots:
        return InputSnapshots(
            context.asset_partition_keys,
            functools.partial(self._open, context),
            functools.partial(self._load_pair, context),
        )

    def _load_times(self, context: dg.InputContext) -> SnapshotTimes:
        partitions = PartitionLayout(context.asset_partitions_def)
        places, store = self._places(context), self.store
        keys: defaultdict[str | None, dict[str, str]] = defaultdict(dict)
        for key in context.asset_partition_keys:
            keys[partitions.catalog_key(key)][places.of(key)] = str(key)

        def snapshots_of(catalog: str | None) -> list[StoredSnapshot]:
            partition_of = keys[catalog]
            folders = sorted({file.rpartition("/")[0] for file in partition_of})
            return [
                StoredSnapshot(
                    functools.partial(store.open, each.key),
                    partition_of[each.key],
                    each.modified.isoformat(),
                )
                for folder in folders
                for each in store.files(folder)
                if each.key in partition_of
            ]

        return SnapshotTimes(snapshots_of)

    def _partition_files(self, context: dg.InputContext) -> dict[str, str]:
        keys = list(context.asset_partition_keys)
        if (context.definition_metadata or {}).get(ALLOW_MISSING):
            places = self._places(context)
            keys = [key for key in keys if self.store.exists(places.of(key))]
        return {key: self._existing_key(context, key) for key in keys}

    def _one_frame(
        self, context: dg.InputContext, frames: Mapping[str, pl.LazyFrame]
    ) -> pl.LazyFrame:
        asset, column = context.asset_key.to_user_string(), self.partition_column
        if not frames:
            raise OctogenSnapshotError(
                f"{asset} cannot be loaded: none of its partitions has a snapshot yet. Materialize "
                "one first."
            )
        if any(column in frame.collect_schema() for frame in frames.values()):
            raise OctogenSnapshotError(
                f"The partitions of {asset} cannot become one frame: they have a column {column!r} "
                "of their own. Give the IO manager another partition_column, or load the "
                "partitions as a dict."
            )
        named = [frame.with_columns(pl.lit(key).alias(column)) for key, frame in frames.items()]
        return pl.concat(named, how="diagonal")

    def _existing_key(self, context: dg.InputContext, partition: str | None) -> str:
        key = self._places(context).of(partition)
        if not self.store.exists(key):
            of = f", partition {partition!r}" if partition is not None else ""
            raise OctogenSnapshotError(
                f"The snapshot of {context.asset_key.to_user_string()}{of} does not exist "
                f"({self.store.uri(key)}). Materialize it first."
            )
        return key

    def _places(self, context: dg.InputContext, partition: str | None = None) -> SnapshotKeys:
        return SnapshotKeys(self.store, context.asset_key, _partitions_def(context), partition)


def _resolved(value: Any) -> Any:
    variable = _variable(value)
    if variable is None:
        return value
    found = os.environ.get(variable)
    if found is None:
        raise OctogenSnapshotError(
            f"The storage options name the environment variable {variable}, which is not set. "
            "Set it where the run executes."
        )
    return found


def _variable(value: Any) -> str | None:
    """The variable that a value stands for: Dagster hands `dg.EnvVar("X")` on as `{"env": "X"}`."""
    if isinstance(value, dg.EnvVar):
        return value.env_var_name
    if isinstance(value, dict) and set(value) == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None


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


def _add_metadata(
    context: dg.OutputContext, metadata: Mapping[str, Any], partition: str | None = None
) -> None:
    """Add metadata to a materialization, and not to the event of the handled output as well."""
    try:
        step = context.step_context
    except dg.DagsterInvariantViolationError:  # a context made for a test
        step = None
    if step and context.has_asset_key:
        step.add_asset_metadata(metadata, context.asset_key, partition_key=partition)
    else:
        context.add_output_metadata(metadata)


def _run_of(context: dg.OutputContext) -> PublishingStep:
    try:
        return PublishingStep(context.step_context.instance, context.run_id, context.step_key)
    except dg.DagsterInvariantViolationError:  # a context made for a test
        run_id = None
        with contextlib.suppress(dg.DagsterInvariantViolationError):
            run_id = context.run_id
        return PublishingStep(None, run_id, "")


def _partition(context: dg.InputContext | dg.OutputContext) -> str | None:
    return context.partition_key if context.has_asset_partitions else None


def _partitions(context: dg.OutputContext) -> Sequence[str | None]:
    """The partitions that a run publishes; None for an asset without partitions."""
    if context.has_asset_partitions and not context.has_partition_key:
        return context.asset_partition_keys
    return [_partition(context)]


def _partitions_def(
    context: dg.InputContext | dg.OutputContext,
) -> dg.PartitionsDefinition[Any] | None:
    return context.asset_partitions_def if context.has_asset_partitions else None


def _by_partition(
    context: dg.OutputContext, partitions: Sequence[str | None], made: Any
) -> dict[str, SnapshotSource]:
    """The source of each partition of a run."""
    asset = context.asset_key
    if not isinstance(made, Mapping):
        raise TypeError(
            f"Asset {asset.to_user_string()} returned {type(made).__name__} in a run of "
            f"{len(partitions):,} partitions. Return a dict with {RETURNED}, for each of "
            "context.partition_keys."
        )
    if missing := [key for key in partitions if key not in made]:
        raise TypeError(
            f"Asset {asset.to_user_string()} returned nothing for {len(missing):,} of its run's "
            f"{len(partitions):,} partitions, such as {missing[0]!r}. Return a dict with a frame "
            "for each of context.partition_keys."
        )
    return {key: snapshot_source(asset, made[key]) for key in partitions if key is not None}


def _check_without_partitions(context: dg.InputContext) -> None:
    """Check that an asset of which no partition is named has none."""
    with contextlib.suppress(dg.DagsterInvariantViolationError):  # it has none
        if context.asset_partitions_def:
            raise OctogenSnapshotError(
                f"{context.asset_key.to_user_string()} has partitions, and none is named: "
                "load_asset_value(..., partition_key=...) loads one."
            )
