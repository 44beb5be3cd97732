"""snapshot_asset: a decorator that runs an asset's function and publishes the result.

    @snapshot_asset → the asset's function → Publication.publish → Dagster's report

In a run of several partitions, `range_run` does this for each partition.
"""

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeAlias

import dagster as dg
import polars as pl
from typing_extensions import TypeVar

from octogen_dagster.assets.automation import SNAPSHOT_TAG
from octogen_dagster.assets.definition import (
    RETRY_POLICY,
    Metadata,
    keeps_snapshots,
    octogen_asset,
    output_manager,
    permanent_errors_fail,
    takes_range,
)
from octogen_dagster.frames.kinds import PLAIN, Published, TableKind
from octogen_dagster.frames.source import SnapshotSource, collected, source_of
from octogen_dagster.printable import OnceLog
from octogen_dagster.snapshots.budget import shared_budget
from octogen_dagster.snapshots.data_version import of_run
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.loading import (
    NEEDS_FILES,
    NEEDS_RANGE,
    Snapshots,
    require_own,
)
from octogen_dagster.snapshots.metadata import (
    COLUMN_SCHEMA,
    column_lineage,
    column_schema,
    register_kind,
    snapshot_metadata,
)
from octogen_dagster.snapshots.partitions import SnapshotKeys
from octogen_dagster.snapshots.publication import PublishedSnapshot, PublishingStep
from octogen_dagster.snapshots.range_run import RunService, report_range
from octogen_dagster.validation import did_you_mean

_Service = TypeVar("_Service", bound=RunService | None, default=None)
_MANY = 1_000_000


@dataclass(frozen=True)
class SnapshotRun(Generic[_Service]):
    """The current run, passed to a snapshot asset's function.

    All partitions in a run share the same `SnapshotRun`.

    Attributes:
        context: The run's Dagster context, with its log and configuration.
        service: The service of the asset's `OctogenResource`, or None if the asset has no such
            resource.
        kind: The table kind.
        lineage: The column-lineage metadata.
        stop: Set when the run ends early, for example after an interrupt, so that waiting threads
            stop.
    """

    context: dg.AssetExecutionContext
    service: _Service
    kind: TableKind
    lineage: Metadata
    stop: threading.Event = field(default_factory=threading.Event)


MakeSnapshot: TypeAlias = Callable[..., Any]
"""A snapshot asset's function."""


def snapshot_asset(
    own: Mapping[str, Any],
    given: Mapping[str, Any] = MappingProxyType({}),
    *,
    kind: TableKind = PLAIN,
    made_from: dg.AssetsDefinition | None = None,
    resource_key: str | None = None,
    loads: Mapping[str, type] | None = None,
    needs_files: bool = False,
    takes_ranges: bool = True,
) -> Callable[[MakeSnapshot], dg.AssetsDefinition]:
    """Return the decorator for a snapshot asset.

    The decorated function makes one snapshot. Its arguments are the run (a `SnapshotRun`), the
    partition key (None if the asset has no partitions) and, by name, the asset's inputs (each a
    `Snapshots`). It returns a frame, or a `dagster.MaterializeResult` whose value is a frame. The
    result's metadata is added to the snapshot's metadata. The frame is cast to the columns of
    `kind`. In a run of a single partition, the function can also return an iterator of such results
    and other events, for example to keep a connection open while the rows are read. The function's
    name and docstring are the defaults for the asset's name and description.

    The snapshot is published before its materialization is reported. In a run with a
    `backfill_policy`, each partition is published, reported and checked separately, and a retry
    reads only the failed partitions.

    Args:
        own: The builder's `@dagster.asset` arguments, including `snapshot_inputs`. An input
            given as a `dagster.AssetIn` in `ins` is loaded as `Snapshots` as well.
        given: The user's arguments. Metadata, dependencies, resources and checks are added to the
            builder's. Any other argument overrides the builder's.
        kind: The table kind.
        made_from: The upstream asset for the columns in `kind.made_from`. If both assets have the
            same `backfill_policy`, Dagster would put them into one run and skip this asset, so this
            asset gets separate runs.
        resource_key: The key of an `OctogenResource`. The resource sets how many partitions are
            read in parallel. If it is None, partitions are made one after another and without a
            pool. Their retry policy is the products asset's, because a retry costs nothing.
        loads: Input types other than `Snapshots`, by name.
        needs_files: True for a table that requires a `ParquetSnapshotIOManager`.
        takes_ranges: False to reject a `backfill_policy`.

    Raises:
        TypeError: The function does not accept the run, the partition and the inputs.
    """
    if made_from is not None:
        given = {**given, **own_range({**own, **given}, made_from)}
    arguments = {**own, **given}
    execute = arguments.pop("execute", None) or (lambda _context, compute: compute())
    own = _with_defaults(own, kind, is_free=resource_key is None)
    tags = {**(own.get("tags") or {}), **(given.get("tags") or {}), SNAPSHOT_TAG: ""}
    given = {**given, "tags": tags}
    lineage = column_lineage(made_from.key, kind.made_from) if made_from and kind.made_from else {}
    has_range = takes_range(arguments.get("backfill_policy"), arguments.get("partitions_def"))
    has_partitions = arguments.get("partitions_def") is not None

    def decorate(make: MakeSnapshot) -> dg.AssetsDefinition:
        names = [*own.get("ins", ())]
        _check_parameters(make, names)

        def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
            subject = context.asset_key.to_user_string()
            if needs_files:
                require_own(*output_manager(context), subject, NEEDS_FILES)
            elif has_range and not context.has_partition_key:
                require_own(*output_manager(context), subject, NEEDS_RANGE)
            run = SnapshotRun(context, _service(context, resource_key), kind, lineage)

            def snapshot(partition: str | None) -> Any:
                with permanent_errors_fail():
                    return _result(kind, make(run, partition, **inputs), subject)

            if has_range and not context.has_partition_key:
                yield from execute(context, lambda: _publish_range(run, snapshot))
                return
            partition = context.partition_key if has_partitions else None
            results = execute(context, lambda: snapshot(partition))
            for result in results if isinstance(results, Iterator) else [results]:
                yield from _publish(run, partition, result)

        others = loads or {}
        compute.__name__, compute.__doc__ = make.__name__, make.__doc__
        _set_parameters(compute, {each: others.get(each, Snapshots) for each in names})
        options = {"output_required": False} if has_range else {}
        # `execute` wraps only the asset's function, not the publication.
        without = {name: each for name, each in given.items() if name != "execute"}
        return register_kind(
            octogen_asset({**own, **options}, without, takes_ranges=takes_ranges)(compute),
            kind,
            made_from,
        )

    return decorate


def _with_defaults(own: Mapping[str, Any], kind: TableKind, *, is_free: bool) -> Mapping[str, Any]:
    """Add the table kind's columns. If the asset calls no paid service, add a retry policy."""
    if is_free:
        own = {"retry_policy": RETRY_POLICY, "pool": None, **own}
    if kind.schema:
        columns = {COLUMN_SCHEMA: column_schema(kind.schema, kind.descriptions)}
        own = {**own, "metadata": {**columns, **own.get("metadata", {})}}
    return own


def _check_parameters(make: MakeSnapshot, inputs: Sequence[str]) -> None:
    try:
        inspect.signature(make).bind(None, None, **dict.fromkeys(inputs))
    except TypeError as error:
        raise TypeError(
            f"The snapshot asset's function {make.__name__} has the wrong parameters ({error}). "
            f"Write def {make.__name__}({', '.join(('run', 'partition', *inputs))})."
        ) from None


def _result(kind: TableKind, made: Any, subject: str) -> Any:
    """Convert a function's return value to a result. Cast the frame to the table kind's columns."""
    if isinstance(made, Iterator):
        return made
    result = made if isinstance(made, dg.MaterializeResult) else dg.MaterializeResult(value=made)
    if not kind.schema or not isinstance(result.value, pl.DataFrame | pl.LazyFrame):
        return result
    return result._replace(value=_cast(kind.schema, result.value, subject))


def _cast(
    schema: pl.Schema, frame: pl.DataFrame | pl.LazyFrame, subject: str
) -> pl.DataFrame | pl.LazyFrame:
    """Cast a frame to a schema. If the frame does not fit, fail the run without a retry."""
    columns = frame.collect_schema()
    if missing := [name for name in schema if name not in columns]:
        raise dg.Failure(
            f"The frame for {subject} has no column {missing[0]!r}."
            f"{did_you_mean(missing[0], columns)} Its columns are {', '.join(columns)}. Return a "
            f"frame with the columns {', '.join(schema)}.",
            allow_retries=False,
        )
    try:
        return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
    except pl.exceptions.InvalidOperationError as error:
        raise dg.Failure(
            f"The frame for {subject} contains values of the wrong type: {error}",
            allow_retries=False,
        ) from error


def _set_parameters(compute: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
    """Annotate the function's parameters. Dagster derives the input types from the annotations.

    Dagster caches one type per annotation, and a job cannot have two types with the same name.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["context", *inputs]
    compute.__annotations__ = {"context": dg.AssetExecutionContext, **inputs}
    compute.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, annotation=compute.__annotations__[name]) for name in names]
    )


def _service(context: dg.AssetExecutionContext, resource_key: str | None) -> RunService | None:
    key, manager = output_manager(context)
    own = ParquetSnapshotIOManager.handle_output
    if keeps_snapshots(manager) and type(manager).handle_output is not own:
        context.log.warning(
            f"The class {type(manager).__name__} of the resource {key!r} overrides handle_output, "
            "which this asset does not call. The asset publishes its snapshot before Dagster "
            "records the materialization. Move the code in handle_output to a downstream asset."
        )
    if resource_key is None:
        return None
    with permanent_errors_fail():
        service: RunService = getattr(context.resources, resource_key).service()
        several = context.has_partition_key_range
        return service.for_run(context.log.warning, reads_several=several)


def _publish(run: SnapshotRun[Any], partition: str | None, result: Any) -> Iterator[Any]:
    """Publish a single snapshot and yield its materialization.

    Saved pages are removed after Dagster has recorded the materialization, so that a retry can
    resume from them if the run dies earlier. An IO manager other than `ParquetSnapshotIOManager`
    receives the whole frame.
    """
    context, step = run.context, PublishingStep.of(run.context)
    _, manager = output_manager(context)
    if not isinstance(result, dg.MaterializeResult):
        yield result
        return
    source = source_of(result.value, f"Asset {step.asset.to_user_string()}")
    also = {**run.lineage, **(result.metadata or {})}
    if not keeps_snapshots(manager):
        if not isinstance(result.value, pl.DataFrame):  # otherwise it is a whole frame anyway
            context.log.info(
                f"The complete, checked snapshot is passed to the {type(manager).__name__} as a "
                "single frame. Saved pages, atomic replacement, multi-partition runs and histories "
                "require a ParquetSnapshotIOManager. To use one, set io_manager_key."
            )
        with permanent_errors_fail(), shared_budget(step, source.spending):
            frame, metadata = _collected(run, source, also)
        context.add_asset_metadata(metadata, step.asset)
        yield dg.MaterializeResult(
            value=frame,
            check_results=result.check_results,
            # The previous rows are unknown here, so each run counts as a change.
            data_version=dg.DataVersion(of_run(_catalog_version(result), step.run_id)),
            tags=result.tags,
        )
        return
    manager.remove_abandoned(step.asset)
    with permanent_errors_fail(), shared_budget(step, source.spending):
        published = manager.publication(step, partition, run.kind).publish(
            source, run.stop, also=also, catalog_version=_catalog_version(result)
        )
    context.add_asset_metadata(published.metadata, step.asset)
    version = published.version
    yield from step.observations(partition, version)
    yield dg.MaterializeResult(
        check_results=result.check_results,
        data_version=version and dg.DataVersion(version.data_version),
        tags={**(result.tags or {}), **(version.tags if version else {})},
    )
    published.remove_pages()


def _catalog_version(result: dg.MaterializeResult[Any]) -> str:
    return result.data_version.value if result.data_version else ""


def _collected(
    run: SnapshotRun[Any], source: SnapshotSource, also: Mapping[str, Any]
) -> tuple[pl.DataFrame, Metadata]:
    """Read a whole snapshot into memory and return it with its metadata."""
    context, log = run.context, run.context.log
    subject = context.asset_key.to_user_string()
    frame, outcome = collected(source, subject, log.info, log.warning, run.stop)
    row_count = "partition_row_count" if context.has_partition_key else "row_count"
    stored: Metadata = {f"dagster/{row_count}": len(frame)}
    published = Published(frame.lazy(), outcome.file_metadata)
    return frame, snapshot_metadata(run.kind, outcome, published, stored, log.warning, also=also)


def _publish_range(
    run: SnapshotRun[Any], snapshot: Callable[[str], dg.MaterializeResult[Any]]
) -> Iterator[Any]:
    """Publish a run's partitions and yield their events."""
    step = PublishingStep.of(run.context)
    manager: ParquetSnapshotIOManager
    _, manager = output_manager(run.context)
    manager.remove_abandoned(step.asset)
    once = OnceLog(run.context.log.warning)  # the same warning can apply to many catalogs

    def publish(partition: str, note_read: Callable[[], None]) -> PublishedSnapshot:
        with permanent_errors_fail():
            result = snapshot(partition)
            source = source_of(result.value, f"Asset {step.asset.to_user_string()}")
            publication = manager.publication(step, partition, run.kind, once.warn)
            also = {**run.lineage, **(result.metadata or {})}
            catalog_version = _catalog_version(result)
            return publication.publish(source, run.stop, note_read, also, catalog_version)

    def stored(partition: str) -> pl.LazyFrame:
        return manager.store.scan(SnapshotKeys(manager.store, step.asset).of(partition))

    return report_range(run.context, step, publish, stored, service=run.service, stop=run.stop)


def own_range(
    arguments: Mapping[str, Any], products: dg.AssetsDefinition
) -> dict[str, dg.BackfillPolicy]:
    """Return another backfill policy for a downstream asset with the same policy as `products`.

    Dagster puts assets with the same policy into the same backfill run, and would skip the
    downstream asset in that run.
    """
    policy = arguments.get("backfill_policy")
    if policy is None or policy != products.backfill_policy:
        return {}
    most = policy.max_partitions_per_run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return {"backfill_policy": dg.BackfillPolicy.multi_run(most + 1 if most else _MANY)}
