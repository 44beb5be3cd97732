"""The checks of snapshots, as Dagster runs them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from octogen_dagster import (
    ParquetSnapshotIOManager,
    build_products_asset,
    build_snapshot_checks,
    catalog_partitions,
)

ALL = {
    "not_empty",
    "unique_uuid",
    "complete",
    "not_truncated",
    "rows_within_bounds",
    "nulls",
    "prices",
    "schema_unchanged",
    "unknown_fields",
    "fresh",
}


def materialize(
    assets: list[Any],
    tmp_path: Path,
    instance: dg.DagsterInstance,
    resources: dict[str, Any] | None = None,
    partition: str | None = None,
    **arguments: Any,
) -> dg.ExecuteInProcessResult:
    """Materialize assets with their checks."""
    return dg.materialize(
        assets,
        instance=instance,
        partition_key=partition,
        resources=resources or {"io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path))},
        raise_on_error=False,
        **arguments,
    )


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def failed(result: dg.ExecuteInProcessResult) -> dict[str, str | None]:
    return {name: each.description for name, each in evaluations(result).items() if not each.passed}


def test_a_whole_catalog_of_the_service_passes(
    tmp_path: Path, resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["strada", "northpeak"])
    products = build_products_asset("products", partitions_def=catalog_partitions)
    assets = [products, *build_snapshot_checks(products, max_age=timedelta(days=2))]

    first = materialize(assets, tmp_path, instance, resources, "strada")
    assert evaluations(first).keys() == ALL
    assert failed(first).keys() == {"fresh"}  # the other catalog has no snapshot yet
    second = materialize(assets, tmp_path, instance, resources, "northpeak")
    assert failed(second) == {}
    for name, each in evaluations(second).items():
        assert each.partition == (None if name == "fresh" else "northpeak")
