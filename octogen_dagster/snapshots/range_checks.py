"""Evaluates checks in the asset's step if a run has several partitions.

In such a run, the asset has no output that separate check steps could check, so Dagster skips these
steps. Dagster also cannot assign a check result to a single partition in a range.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple, get_args, get_type_hints
from weakref import WeakKeyDictionary

import dagster as dg
import polars as pl

from octogen_dagster.errors import UnsupportedDagsterError, dagster_private
from octogen_dagster.snapshots.publication import last_records

PartitionResults = Callable[
    [dg.DagsterInstance, pl.LazyFrame, str | None, Collection[str]], Iterator[dg.AssetCheckResult]
]
PARTITION_CHECKS: WeakKeyDictionary[Any, PartitionResults] = WeakKeyDictionary()
"""Functions that evaluate the checks for one partition, keyed by the op that runs the checks."""
ASSET_CHECKS: WeakKeyDictionary[Any, Callable[[Any], dg.AssetCheckResult]] = WeakKeyDictionary()
"""Functions that evaluate a check over all partitions, keyed by the op that runs the check."""


class RangeChecks(NamedTuple):
    """The checks that a run evaluates for an asset."""

    asset: dg.AssetKey
    instance: dg.DagsterInstance
    of_partitions: list[tuple[PartitionResults, list[str]]]
    of_asset: list[tuple[Callable[[Any], dg.AssetCheckResult], str]]

    @classmethod
    def of(cls, context: dg.AssetExecutionContext) -> "RangeChecks":
        checks = cls(context.asset_key, context.instance, [], [])
        for each in dagster_private(dagster_private(context.job_def, "asset_layer"), "data"):
            definition = each.assets_def
            names = [key.name for key in definition.check_keys if key.asset_key == checks.asset]
            if results := PARTITION_CHECKS.get(definition.node_def):
                checks.of_partitions.append((results, names))
            elif names and (result := ASSET_CHECKS.get(definition.node_def)):
                checks.of_asset.append((result, names[0]))
        return checks

    def evaluations(
        self, snapshot: Callable[[], pl.LazyFrame], partition: str, evaluated: Collection[str]
    ) -> Iterator[Any]:
        """Evaluate a partition's checks, except for checks that have already been evaluated."""
        for results, names in self.of_partitions:
            if missing := [name for name in names if name not in evaluated]:
                found = results(self.instance, snapshot(), partition, missing)
                yield from partition_evaluations(self.instance, self.asset, partition, found)

    def last_evaluations(self, context: dg.AssetExecutionContext) -> Iterator[Any]:
        """Evaluate the checks that cover all partitions."""
        for result, name in self.of_asset:
            yield _evaluation(self.asset, name, result(context))


def partition_evaluations(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    partition: str,
    results: Iterable[dg.AssetCheckResult],
) -> Iterator[dg.AssetCheckEvaluation]:
    """Convert a partition's check results to Dagster check evaluations.

    Each evaluation refers to the partition's latest materialization, because
    `AutomationCondition.all_deps_blocking_checks_passed` requires such evaluations.
    """
    record = last_records(instance, asset, [partition]).get(partition)
    target = record and _target_class()(
        storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
    )
    for result in results:
        yield _evaluation(asset, str(result.check_name), result, partition, target)


@functools.cache
def _target_class() -> Any:
    """Return the type of `target_materialization_data`. Dagster does not export this type."""
    try:
        return get_args(get_type_hints(dg.AssetCheckEvaluation)["target_materialization_data"])[0]
    except (KeyError, IndexError, NameError):
        raise UnsupportedDagsterError("AssetCheckEvaluation.target_materialization_data") from None


def _evaluation(
    asset: dg.AssetKey,
    name: str,
    result: dg.AssetCheckResult,
    partition: str | None = None,
    target: Any = None,
) -> dg.AssetCheckEvaluation:
    """Return a non-blocking check evaluation. The run has no later steps to block."""
    return dg.AssetCheckEvaluation(
        asset,
        name,
        passed=result.passed,
        metadata=result.metadata,
        target_materialization_data=target,
        severity=result.severity,
        description=result.description,
        blocking=False,
        partition=partition,
    )
