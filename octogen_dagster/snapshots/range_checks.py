"""Checks in a run of several partitions, which the step of the asset evaluates itself.

Dagster skips the steps of checks in such a run, since the asset has no output that they could wait
for, and knows no partition of a result in a range.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import dagster as dg
import polars as pl

PartitionResults = Callable[
    [dg.DagsterInstance, pl.LazyFrame, str | None, Collection[str]], Iterator[dg.AssetCheckResult]
]
OF_PARTITIONS: WeakKeyDictionary[Any, PartitionResults] = WeakKeyDictionary()
"""By the step of checks, what evaluates those with some names for a partition's snapshot."""
OF_ASSETS: WeakKeyDictionary[Any, Callable[[Any], dg.AssetCheckResult]] = WeakKeyDictionary()
"""By the step of a check that looks at all partitions, what evaluates it with a run's context."""


class RangeChecks(NamedTuple):
    """The checks of an asset that were requested with a run."""

    asset: dg.AssetKey
    instance: dg.DagsterInstance
    of_partitions: list[tuple[PartitionResults, list[str]]]
    of_asset: list[tuple[Callable[[Any], dg.AssetCheckResult], str]]

    @classmethod
    def of(cls, context: dg.AssetExecutionContext) -> "RangeChecks":
        checks = cls(context.asset_key, context.instance, [], [])
        for each in context.job_def.asset_layer.data:
            definition = each.assets_def
            names = [key.name for key in definition.check_keys if key.asset_key == checks.asset]
            if results := OF_PARTITIONS.get(definition.node_def):
                checks.of_partitions.append((results, names))
            elif names and (result := OF_ASSETS.get(definition.node_def)):
                checks.of_asset.append((result, names[0]))
        return checks

    def evaluations(self, snapshot: pl.LazyFrame, partition: str) -> Iterator[Any]:
        """Evaluate the checks of a partition, whose materialization was reported."""
        for results, names in self.of_partitions:
            for result in results(self.instance, snapshot, partition, names):
                yield evaluation(self.asset, str(result.check_name), result, partition)

    def last_evaluations(self, context: dg.AssetExecutionContext) -> Iterator[Any]:
        """Evaluate the checks that look at all partitions."""
        for result, name in self.of_asset:
            yield evaluation(self.asset, name, result(context))


def evaluation(
    asset: dg.AssetKey, name: str, result: dg.AssetCheckResult, partition: str | None = None
) -> dg.AssetCheckEvaluation:
    """What is reported of a result. It blocks nothing: nothing follows in the same run."""
    return dg.AssetCheckEvaluation(
        asset,
        name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=False,
        partition=partition,
    )
