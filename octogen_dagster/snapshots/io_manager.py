"""ParquetSnapshotIOManager: stores each asset or partition as one complete Parquet file."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr, field_validator

from octogen_dagster.assets.definition import canceling_ends, permanent_errors_fail
from octogen_dagster.assets.settings import NamedSettings
from octogen_dagster.errors import OctogenSnapshotError, dagster_private
from octogen_dagster.frames.kinds import PLAIN, TableKind
from octogen_dagster.frames.source import RETURNED, SnapshotSource, source_of
from octogen_dagster.masking import refuse_secrets
from octogen_dagster.snapshots.budget import shared_budget
from octogen_dagster.snapshots.loading import load_snapshots
from octogen_dagster.snapshots.partitions import SnapshotKeys
from octogen_dagster.snapshots.publication import (
    Publication,
    PublishedSnapshot,
    PublishingStep,
    reported_again,
)
from octogen_dagster.snapshots.range_run import RangeRun
from octogen_dagster.storage.store import Store, check_base_dir

if TYPE_CHECKING:
    from collections.abc import Callable


class ParquetSnapshotIOManager(NamedSettings, dg.ConfigurableIOManager):
    """Stores frames as Parquet snapshots and loads them.

    An asset can return a `polars.LazyFrame` (streamed), a `polars.DataFrame`, a `pandas.DataFrame`
    (with its index if the index has a name), a `pyarrow.Table` or the result of
    `OctogenResource.scan`. In a run of several partitions, the asset returns a dict that maps each
    partition key to such a value.

    The file is written under a temporary name and replaces the previous snapshot only after its
    footer has been read back. The asset `a/b` is stored as `<base_dir>/a/b.parquet` and its
    partition `k` as `<base_dir>/a/b/k.parquet`. Characters that are unsafe in a path are
    percent-encoded.

    During a read, search pages are saved beside the snapshot, so that the next run of the same
    partition resumes after a crash. Saved pages are removed once the snapshot is published. If a
    snapshot is replaced before a history has read it, a copy is kept for the history.

    An input can be annotated with `pl.DataFrame` (the default), `pl.LazyFrame`, `pd.DataFrame`,
    `pyarrow.Table` or `pathlib.Path` (only for files on disk), or with a `dict[str, ...]` that has
    one of these types as its value type. If the input is the partition with the run's partition
    key, the snapshot is loaded as stored. Otherwise, the input's partitions, even a single one, are
    combined into one frame, and the column `partition_column` contains the partition keys. A
    missing snapshot raises an error, unless the input's metadata sets `allow_missing_partitions`.
    """

    base_dir: str = Field(
        description="A folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Object store options for obstore and Polars, such as aws_region. Pass secrets "
        "as dg.EnvVar.",
    )
    partition_column: str = Field(
        default="partition",
        description="The column that contains the partition key in frames with several partitions.",
    )
    resume_within_hours: float = Field(
        default=6.0,
        ge=0,
        description=(
            "Number of hours for which an interrupted read can be resumed. With 0, pages are not "
            "saved."
        ),
    )
    _store: Store | None = PrivateAttr(default=None)

    @field_validator("base_dir")
    @classmethod
    def _check_base_dir(cls, base_dir: str) -> str:
        if _variable(base_dir) is None:
            check_base_dir(base_dir)
        return base_dir

    @field_validator("storage_options")
    @classmethod
    def _check_storage_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        refuse_secrets({name: value for name, value in options.items() if not _variable(value)})
        return options

    @property
    def store(self) -> Store:
        """The folder or bucket for all snapshots.

        Raises:
            OctogenSnapshotError: An environment variable in the options is not set.
            ValueError: `base_dir` is empty or has an unknown scheme, or an option is unknown.
        """
        if self._store is None:
            options = {name: _resolved(value) for name, value in self.storage_options.items()}
            self._store = Store(self.base_dir, options)
        return self._store

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Publish a snapshot and add its metadata to the materialization.

        In a run of several partitions, publish a snapshot for each partition.

        Args:
            context: The asset's output context.
            obj: A frame or a scan. In a run of several partitions, a dict with a frame or a scan
                for each partition key.

        Raises:
            OctogenError: The read failed.
            OctogenSnapshotError: The store is not writable, or the read was incomplete.
            dagster.Failure: The read failed permanently, or some partitions failed.
            TypeError: The asset returned neither a frame nor a scan, or it did not return a dict
                in a run of several partitions.
            MissingPackageError: The asset returned a `pandas.DataFrame` without pyarrow installed.
        """
        step = _step_of(context)
        partitions = _partitions(context)
        with canceling_ends(step.instance, step.run_id):
            self.remove_abandoned(step.asset)
            if len(partitions) > 1 or (isinstance(obj, Mapping) and None not in partitions):
                self._publish_each(context, step, _by_partition(context, partitions, obj))
                return
            source = source_of(obj, f"Asset {context.asset_key.to_user_string()}")
            with permanent_errors_fail(), shared_budget(step, source.spending):
                publication = self.publication(step, partitions[0])
                published = publication.publish(source, threading.Event())
            _add_metadata(context, published.metadata)
            published.remove_pages()

    def _publish_each(
        self, context: dg.OutputContext, step: PublishingStep, sources: Mapping[str, SnapshotSource]
    ) -> None:
        """Publish each partition in a run.

        Dagster reports all partitions when the step succeeds, so their saved pages are kept until
        then. If any partition fails, the published partitions are reported here, and a retry skips
        them.
        """
        run, stop = RangeRun(step, list(sources)), threading.Event()

        def publish(partition: str, note_read: Callable[[], None]) -> PublishedSnapshot:
            with permanent_errors_fail():
                publication = self.publication(step, partition)
                return publication.publish(sources[partition], stop, note_read)

        spending = next((each.spending for each in sources.values() if each.spending), None)
        with shared_budget(step, spending):
            done = dict(run.publish(publish, at_once=1, stop=stop))
        if run.failures:
            for partition, each in done.items():
                context.log_event(step.materialization(partition, each.metadata))
            for _, event in run.reported_by_others():
                context.log_event(event)
        else:
            for partition, record in run.reported.items():
                if before := reported_again(record):
                    _add_metadata(context, before.metadata, partition)
            for partition, each in done.items():
                _add_metadata(context, each.metadata, partition)
        for each in done.values():
            each.remove_pages()
        for observation in run.end():
            context.log_event(observation)

    def publication(
        self,
        step: PublishingStep,
        partition: str | None,
        kind: TableKind = PLAIN,
        warn: Callable[[str], None] | None = None,
    ) -> Publication:
        """Return a `Publication` for one partition, or for an asset without partitions."""
        keys = SnapshotKeys(self.store, step.asset, step.partitions_def, partition)
        resume_within = timedelta(hours=self.resume_within_hours)
        return Publication(step, keys, kind, resume_within, warn)

    def remove_abandoned(self, asset: dg.AssetKey) -> None:
        """Remove partial files that killed runs left behind for the asset or its partitions."""
        self.store.remove_abandoned(SnapshotKeys(self.store, asset).own)

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an input's snapshots as its annotated type.

        Args:
            context: The input context.

        Raises:
            OctogenSnapshotError: A snapshot does not exist or is damaged, the annotation is a path
                but the snapshot is in a bucket, or an input outside a run has no partition key.
            TypeError: The annotation is not supported, or not supported for this asset's
                partitions.
            MissingPackageError: The annotation is `pd.DataFrame`, but pyarrow is not installed.
        """
        return load_snapshots(context, self.store, self.partition_column)


def _resolved(value: Any) -> Any:
    variable = _variable(value)
    if variable is None:
        return value
    found = os.environ.get(variable)
    if found is None:
        raise OctogenSnapshotError(
            f"The environment variable {variable} in the storage options is not set. Set it where "
            "the run executes."
        )
    return found


def _variable(value: Any) -> str | None:
    """Return the environment variable's name if the value is a `dg.EnvVar`, otherwise None.

    Dagster passes `dg.EnvVar("X")` as `{"env": "X"}`.
    """
    if isinstance(value, dg.EnvVar):
        return value.env_var_name
    if isinstance(value, dict) and set(value) == {"env"} and isinstance(value["env"], str):
        return value["env"]
    return None


def _add_metadata(
    context: dg.OutputContext, metadata: Mapping[str, Any], partition: str | None = None
) -> None:
    """Add metadata to the materialization, but not to the handled-output event."""
    try:
        step = dagster_private(context, "step_context")
    except dg.DagsterInvariantViolationError:  # a context made for a test
        context.add_output_metadata(metadata)
    else:
        add = dagster_private(step, "add_asset_metadata")
        add(metadata, context.asset_key, partition_key=partition)


def _step_of(context: dg.OutputContext) -> PublishingStep:
    instance, run_id, key = None, None, ""
    with contextlib.suppress(dg.DagsterInvariantViolationError):  # a context made for a test
        run_id = context.run_id
        key = context.step_key
        instance = dagster_private(context, "step_context").instance
    partitions_def = context.asset_partitions_def if context.has_asset_partitions else None
    return PublishingStep(context.asset_key, partitions_def, context.log, instance, run_id, key)


def _partitions(context: dg.OutputContext) -> Sequence[str | None]:
    """Return the run's partitions; `[None]` for an asset without partitions."""
    if context.has_asset_partitions and not context.has_partition_key:
        return context.asset_partition_keys
    return [context.partition_key if context.has_asset_partitions else None]


def _by_partition(
    context: dg.OutputContext, partitions: Sequence[str | None], made: Any
) -> dict[str, SnapshotSource]:
    """Validate the returned dict, and convert each partition's value to a source."""
    subject = f"Asset {context.asset_key.to_user_string()}"
    if not isinstance(made, Mapping):
        raise TypeError(
            f"{subject} returned a value of type {type(made).__name__} in a run of "
            f"{len(partitions):,} partitions. Return a dict that maps each key in "
            f"context.partition_keys to {RETURNED}."
        )
    if missing := [key for key in partitions if key not in made]:
        raise TypeError(
            f"{subject} returned a dict without a frame for {len(missing):,} of the run's "
            f"{len(partitions):,} partitions, such as {missing[0]!r}. Return a dict with a frame "
            "for each key in context.partition_keys."
        )
    if others := [key for key in made if key not in partitions]:
        raise TypeError(
            f"{subject} returned a frame for {others[0]!r}, which is not one of the run's "
            f"{len(partitions):,} partitions. Return a dict whose keys are exactly "
            "context.partition_keys."
        )
    return {key: source_of(made[key], subject) for key in partitions if key is not None}
