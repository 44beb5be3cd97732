"""Runs of several partitions: each is published, checked and reported by itself.

A run by a `dagster.BackfillPolicy` has a range of partitions. An `Output` would report all of them
or none, so such a run yields a materialization for each that is done, and what fails is known by
what was not reported: the UI shows exactly those partitions as failed, and a retry reads no others.
"""

import functools
import inspect
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import dagster as dg
import polars as pl

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.service import OnceLog
from octogen_dagster.asset_definition import octogen_asset, permanent_errors_fail, takes_range
from octogen_dagster.frames.progress import Throttle
from octogen_dagster.frames.source import SnapshotSource
from octogen_dagster.run_budget import shared_budget
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.metadata import COLUMN_SCHEMA
from octogen_dagster.snapshots.partitions import SnapshotKeys
from octogen_dagster.snapshots.publication import (
    Failures,
    Published,
    PublishingStep,
    each_at_once,
    evaluated_before,
    materialization,
    reported_before,
    snapshot_source,
)
from octogen_dagster.snapshots.range_checks import RangeChecks
from octogen_dagster.snapshots.resource import OctogenResource
from octogen_dagster.ticks import RANGE_END_TAG, RANGE_START_TAG

_TELL_SECONDS = 1.0
"""How often what catalogs under way have cost is told to the run."""
_MANY = 1_000_000


class Made(NamedTuple):
    """What a run makes of one partition, or of an asset without any.

    `metadata` and the data version are those of its materialization, besides what its publication
    adds.
    """

    source: SnapshotSource | pl.LazyFrame | pl.DataFrame
    metadata: Mapping[str, Any] = {}
    version: str | None = None


Make: TypeAlias = Callable[[str | None], Made]


def snapshot_asset(
    own: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    resource_key: str | None = None,
    loads: type | None = None,
) -> Callable[[Callable[..., Make]], dg.AssetsDefinition]:
    """Return the decorator of an asset whose run may have several partitions.

    The decorated function is called once a run, with its context and inputs, and returns what makes
    each partition, in several threads. With the key of an `OctogenResource` as many partitions are
    made at once as are read at once; without, one after the other. `loads` is what its only input
    is loaded as.
    """

    def decorate(begin: Callable[..., Make]) -> dg.AssetsDefinition:
        def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Any:
            partition = context.partition_key if arguments.get("partitions_def") else None
            with permanent_errors_fail():
                made = begin(context, **inputs)(partition)
            if made.metadata:
                context.add_asset_metadata(made.metadata)
            if made.version:
                context.set_data_version(context.asset_key, dg.DataVersion(made.version))
            return made.source

        def compute_range(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
            if context.has_partition_key:
                yield dg.Output(compute(context, **inputs))
                return
            octogen: OctogenResource | None = None
            if resource_key:
                octogen = getattr(context.resources, resource_key)
            manager = _io_manager(context)
            partitions = _partitions(context)
            make = begin(context, **inputs)
            yield from _publish_range(context, partitions, make, manager, octogen)

        if loads is not None:
            # In place of an annotation: a job may know only one Dagster type of a name, and Dagster
            # keeps one for each annotation.
            (name,) = own["ins"]
            begin.__annotations__[name] = loads
        arguments = {**own, **given}
        if not takes_range(arguments.get("backfill_policy"), arguments.get("partitions_def")):
            return octogen_asset(own, given)(_with_signature(compute, begin))
        return octogen_asset({**own, "output_required": False}, given, takes_ranges=True)(
            _with_signature(compute_range, begin)
        )

    return decorate


def _with_signature(compute: Callable[..., Any], begin: Callable[..., Any]) -> Callable[..., Any]:
    """Return `compute` with the name and the parameters that Dagster reads, of `begin`."""
    functools.update_wrapper(compute, begin)
    annotations = {name: kind for name, kind in begin.__annotations__.items() if name != "return"}
    compute.__annotations__ = annotations
    signature = inspect.signature(begin).replace(return_annotation=inspect.Signature.empty)
    compute.__signature__ = signature  # type: ignore[attr-defined]
    return compute


def _publish_range(
    context: dg.AssetExecutionContext,
    partitions: Sequence[str],
    make: Make,
    manager: ParquetSnapshotIOManager,
    octogen: OctogenResource | None,
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetObservation]:
    """Publish the partitions of a run that are still to be made, and yield what is to be reported.

    A partition is reported before its saved pages are removed: a run that dies in between, or at
    any other time, is retried from the pages of what was not reported.
    """
    asset, run = context.asset_key, _run_of(context)
    partitions_def = context.assets_def.partitions_def
    declared = context.assets_def.metadata_by_key[asset].get(COLUMN_SCHEMA)
    reported = reported_before(run, asset)
    if reported:
        context.log.info(
            f"{sum(key in reported for key in partitions):,} of {len(partitions):,} partitions "
            "were reported by this run, or by the one that it retries, and are left as they are."
        )
    checks = RangeChecks.of(context)
    evaluated = evaluated_before(run, asset) if reported else {}
    failures, stop = Failures(asset, context.log), threading.Event()
    if context.retry_number:
        failures.recall(run)
    left = deque(key for key in partitions if key not in reported and key not in failures)
    untried: list[str] = []
    once = OnceLog(context.log.warning)  # many catalogs of a search share a warning

    def publish(partition: str) -> tuple[Made, Published]:
        with permanent_errors_fail():
            made = make(partition)
            place = manager._publication(
                context, partitions_def, partition, run, lambda line: once.say(line, line)
            )
            return made, place.publish(snapshot_source(asset, made.source), stop)

    def evaluations(partition: str) -> Iterator[dg.AssetCheckEvaluation]:
        def snapshot() -> pl.LazyFrame:
            return manager.store.scan(SnapshotKeys(manager.store, asset).of(partition))

        try:
            yield from checks.evaluations(snapshot, partition, evaluated.get(partition, ()))
        except Exception as error:
            failures.add_unchecked(partition, error)

    for partition in partitions:
        if partition in reported:
            yield from evaluations(partition)
    with shared_budget(*run, octogen.spending if octogen else None, context.log) as tell:
        for partition, future in each_at_once(
            publish,
            left,
            threads=octogen.concurrency if octogen else 1,
            stop=stop,
            poll=Throttle(tell, _TELL_SECONDS),
        ):
            error = future.exception()
            if isinstance(error, Exception):
                failures.add(partition, error)
                if failures.end:
                    untried += left
                    left.clear()
                continue
            failures.passed()
            made, published = future.result()
            metadata = {**made.metadata, **published.metadata}
            if metadata.get(COLUMN_SCHEMA) == declared:  # four kilobytes in each event
                del metadata[COLUMN_SCHEMA]
            tell()
            yield materialization(asset, partition, metadata, run.run_id, made.version)
            published.remove_pages()
            yield from evaluations(partition)
        yield from checks.last_evaluations(context)
    yield from failures.observations()
    failures.raise_any(len(partitions), untried)


def _run_of(context: dg.AssetExecutionContext) -> PublishingStep:
    step = context.get_step_execution_context().step.key
    return PublishingStep(context.instance, context.run.run_id, step)


def _partitions(context: dg.AssetExecutionContext) -> Sequence[str]:
    """The partitions of a run's range, whose ends may have been deleted while it was queued.

    An end that was added again has become the last of all: a range that ends there is too long,
    and one that begins there is empty.
    """
    policy = context.assets_def.backfill_policy
    most = policy and policy.max_partitions_per_run
    problem = "are not known: the first or the last one was deleted while this run was queued"
    try:
        partitions: Sequence[str] = context.partition_keys
    except dg.DagsterInvalidInvocationError:
        partitions = ()
    else:
        if partitions and len(partitions) <= (most or len(partitions)):
            return partitions
        problem = (
            f"are {len(partitions):,}, and a run of this asset has at most {most:,}: the last one "
            "was deleted while this run was queued, and added again behind all others"
            if partitions
            else "are none: the first one was deleted while this run was queued, and added again "
            "behind the last one"
        )
    tags = context.run.tags
    raise dg.Failure(
        f"The partitions from {tags.get(RANGE_START_TAG)!r} to {tags.get(RANGE_END_TAG)!r} of "
        f"{context.asset_key.to_user_string()} {problem}. Nothing was read. Materialize the "
        "others again.",
        allow_retries=False,
    )


def _io_manager(context: dg.AssetExecutionContext) -> ParquetSnapshotIOManager:
    """The IO manager of the asset's output, which has a key of Dagster's with `io_manager_def`."""
    (output,) = context.assets_def.node_def.output_defs
    key = output.io_manager_key
    manager = getattr(context.get_step_execution_context().resources, key)
    if isinstance(manager, ParquetSnapshotIOManager):
        return manager
    raise dg.Failure(
        f"{context.asset_key.to_user_string()} can publish several partitions in a run by a "
        f"ParquetSnapshotIOManager, and the resource {key!r} is a "
        f"{type(manager).__name__}. Leave the asset's backfill_policy out: a backfill then "
        "requests a run for each partition.",
        allow_retries=False,
    )


def service_of(context: dg.AssetExecutionContext, octogen: OctogenResource) -> CatalogService:
    """The service of a run, which all of its partitions share.

    Several catalogs are read at once, and a large one of them in several walks: together they have
    no more requests in flight than one alone would have.
    """
    with permanent_errors_fail():
        service = octogen.service().with_log(context.log.warning)
    if not context.has_partition_key_range:
        return service
    service.limiter.in_flight.cap(octogen.concurrency)
    return service.keeping_connections()


def own_range(
    arguments: Mapping[str, Any], products: dg.AssetsDefinition
) -> dict[str, dg.BackfillPolicy]:
    """The policy of an asset that follows the products, as the argument of their decorator.

    A backfill of two assets with equal policies puts both into one run, in which the one that
    follows would be skipped. With different ones it gets runs of its own.
    """
    policy = arguments.get("backfill_policy")
    if policy is None or policy != products.backfill_policy:
        return {}
    most = policy.max_partitions_per_run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return {"backfill_policy": dg.BackfillPolicy.multi_run(most + 1 if most else _MANY)}
