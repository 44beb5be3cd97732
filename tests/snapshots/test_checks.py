"""The factory of the checks: which an asset has, and how Dagster runs them."""

from __future__ import annotations

import re
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    PRODUCT_SCHEMA,
    ProductSearch,
    build_catalogs_asset,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_products_asset,
    build_snapshot_checks,
    catalog_partitions,
    snapshot_days,
)
from octogen_dagster.snapshots.columns import column_schema
from tests.snapshots.checked import ALL, CheckedAsset, evaluations, failed, numbers, products

PRODUCTS = build_products_asset("products")


def names(asset: dg.AssetsDefinition, **settings: Any) -> set[str]:
    """The names of an asset's checks."""
    return {
        key.name for each in build_snapshot_checks(asset, **settings) for key in each.check_keys
    }


def declared(schema: pl.Schema | dict[str, Any]) -> dict[str, Any]:
    return {"dagster/column_schema": column_schema(schema)}


def materialize(
    assets: list[Any], resources: dict[str, Any], instance: dg.DagsterInstance, **arguments: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        assets, instance=instance, resources=resources, raise_on_error=False, **arguments
    )


def test_a_whole_catalog_of_the_service_passes(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["strada", "northpeak"])
    asset = build_products_asset("products", partitions_def=catalog_partitions)
    assets = [asset, *build_snapshot_checks(asset)]

    first = materialize(assets, resources, instance, partition_key="strada")
    assert evaluations(first).keys() == ALL
    assert failed(first) == set()  # the other catalog has no snapshot yet
    assert numbers(evaluations(first)["fresh"])["awaited"] == 1
    second = materialize(assets, resources, instance, partition_key="northpeak")
    assert failed(second) == set()
    found = evaluations(second)
    assert {name: each.partition for name, each in found.items()} == {
        **dict.fromkeys(ALL, "northpeak"),
        "fresh": None,
    }
    assert found["complete"].description == (
        "products, partition 'northpeak' has 230 of the 230 products that the source counts; "
        "0 % are missing, 5 % may be."
    )
    assert found["not_truncated"].passed
    assert numbers(found["unknown_fields"])["unknown_fields"] == 0


def test_a_search_that_is_capped_is_truncated(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    days = snapshot_days("2026-01-01")
    asset = build_products_asset("products", ProductSearch(max_products=20), days)
    assets = [asset, *build_snapshot_checks(asset)]
    today = days.get_partition_keys()[-1]
    result = materialize(assets, resources, instance, partition_key=today)
    assert failed(result) == {"not_truncated"}
    assert numbers(evaluations(result)["not_truncated"]) == {"rows": 20, "max_products": 20}


def test_changes_and_details_have_the_checks_that_make_sense(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    changes = build_product_changes_asset(PRODUCTS)
    details = build_product_details_asset(PRODUCTS)
    assert names(changes) == {"unique_uuid", "schema_unchanged", "fresh"}
    assert names(details) == ALL - {"complete", "not_truncated", "unknown_fields"}

    checks = [*build_snapshot_checks(changes), *build_snapshot_checks(details)]
    result = materialize([PRODUCTS, changes, details, *checks], resources, instance)
    assert result.success
    assert {each.passed for each in result.get_asset_check_evaluations()} == {True}


def test_an_asset_of_ones_own_has_the_checks_of_its_columns(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    frame = pl.DataFrame({"uuid": ["a"], "title": ["Shoe"]})

    @dg.asset(metadata=declared(frame.schema))
    def own() -> pl.DataFrame:
        return frame

    assert names(own) == {
        *("not_empty", "unique_uuid", "rows_within_bounds", "nulls", "schema_unchanged", "fresh")
    }
    assert failed(materialize([own, *build_snapshot_checks(own)], resources, instance)) == set()
    limited = build_snapshot_checks(own, max_null_share={"price": 0.0})
    assert failed(materialize([own, *limited], resources, instance)) == {"nulls"}


def test_the_rows_of_an_asset_of_something_else_are_no_products() -> None:
    @dg.asset(metadata=declared({"shop": pl.String(), "products": pl.Int64()}))
    def shops() -> None: ...

    with pytest.raises(ValueError, match="no column") as caught:
        build_snapshot_checks(shops)
    assert str(caught.value) == (
        "Asset 'shops' has no column 'uuid', so its rows are no products that could be checked. "
        "Its columns are products, shop. Give build_snapshot_checks an asset of products, of "
        "their details or of their changes."
    )
    for asset in (build_catalogs_asset(), build_product_brands_asset(PRODUCTS)):
        with pytest.raises(ValueError, match="no column 'uuid', so its rows are no products"):
            build_snapshot_checks(asset)


def test_the_checks_are_of_one_asset() -> None:
    @dg.multi_asset(specs=[dg.AssetSpec("a"), dg.AssetSpec("b")])
    def several() -> tuple[None, None]:
        return None, None

    with pytest.raises(ValueError, match=r"has 2 assets, and the checks are of one\. Build them"):
        build_snapshot_checks(several)


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"max_age": None}, "fresh"),
        ({"max_rows_change": None}, "rows_within_bounds"),
        ({"max_missing_share": None}, "complete"),
        ({"max_null_share": None, "max_null_growth": None}, "nulls"),
        ({"max_bad_price_share": None}, "prices"),
        *(({"exclude": [name]}, name) for name in sorted(ALL)),
    ],
    ids=str,
)
def test_a_check_is_left_out(settings: dict[str, Any], left_out: str) -> None:
    assert names(PRODUCTS, **settings) == ALL - {left_out}


def test_all_checks_can_be_left_out() -> None:
    assert build_snapshot_checks(PRODUCTS, exclude=ALL) == []
    assert names(PRODUCTS, exclude=ALL - {"fresh"}) == {"fresh"}


@pytest.mark.parametrize("settings", [{"max_null_share": None}, {"max_null_growth": None}])
def test_one_of_two_limits_of_nulls_is_enough(settings: dict[str, Any]) -> None:
    assert "nulls" in names(PRODUCTS, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_age": timedelta()},
            "max_age must be a positive timedelta or None, not datetime.timedelta(0).",
        ),
        (
            {"max_missing_share": 5},
            "max_missing_share must be a share from 0 to 1 (0.05 is 5 %), not 5",
        ),
        (
            {"max_null_share": {"title": -0.1}},
            "max_null_share['title'] must be a share from 0 to 1 (0.05 is 5 %), not -0.1",
        ),
        (
            {"max_rows_change": -1},
            "max_rows_change must be a share of at least 0 (0.3 is 30 %), not -1",
        ),
        ({"price_outlier_ratio": 1}, "price_outlier_ratio must be above 1, not 1"),
        (
            {"exclude": ["truncated"]},
            "exclude names 'truncated', and there is no such check. Did you mean 'not_truncated'? "
            "The checks are not_empty, unique_uuid, complete, not_truncated, rows_within_bounds, "
            "nulls, prices, schema_unchanged, unknown_fields, fresh.",
        ),
        (
            {"blocking": True, "severity": dg.AssetCheckSeverity.WARN},
            "blocking=True needs severity=dg.AssetCheckSeverity.ERROR: Dagster lets what is "
            "downstream run after a warning.",
        ),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_snapshot_checks(PRODUCTS, **settings)


@pytest.mark.parametrize("partitioned", [False, True])
def test_a_failed_check_that_blocks_keeps_what_is_downstream_from_running(
    tmp_path: Path, instance: dg.DagsterInstance, partitioned: bool
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    asset = CheckedAsset(tmp_path, instance, products(0))
    asset.partitions_def = catalog_partitions if partitioned else None
    partition = "acme" if partitioned else None

    def materialized() -> set[str]:
        events = asset.run(partition).get_asset_materialization_events()
        return {each.asset_key.to_user_string() for each in events if each.asset_key}

    assert materialized() == {"products", "downstream"}
    asset.settings = {"blocking": True}
    assert materialized() == {"products"}
    asset.frame = products(5)
    assert materialized() == {"products", "downstream"}


def test_a_new_field_and_a_stale_catalog_block_nothing(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["acme", "dead"])
    asset = CheckedAsset(tmp_path, instance, partitions_def=catalog_partitions)
    asset.settings = {"blocking": True}
    asset.metadata = {"octogen/unknown_fields": 1, "octogen/unknown_field_names": {"mood": 1}}
    asset.settings["max_age"] = timedelta(microseconds=1)
    result = asset.run("acme")
    assert failed(result) == {"unknown_fields", "fresh"}
    assert result.success


def test_the_severity_is_that_of_all_checks(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    asset = CheckedAsset(tmp_path, instance, products(0))
    assert asset.check("not_empty").severity is dg.AssetCheckSeverity.ERROR
    asset.settings = {"severity": dg.AssetCheckSeverity.WARN}
    assert asset.check("not_empty").severity is dg.AssetCheckSeverity.WARN


def test_a_check_runs_on_its_own(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    asset = CheckedAsset(tmp_path, instance, partitions_def=catalog_partitions)
    asset.run("acme")
    prices = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("products"), "prices"))
    result = asset.run(selection=prices, tags={"dagster/partition": "acme"})
    assert evaluations(result).keys() == {"prices"}
    assert not result.get_asset_materialization_events()


def test_a_run_of_several_partitions_is_compared_with_nothing(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    asset = CheckedAsset(tmp_path, instance, products(100))
    asset.partitions_def = snapshot_days("2026-11-01")
    asset.run("2026-11-01")
    asset.run("2026-11-02")
    tags = {
        "dagster/asset_partition_range_start": "2026-11-01",
        "dagster/asset_partition_range_end": "2026-11-02",
    }
    result = asset.run(selection=dg.AssetSelection.all_asset_checks(), tags=tags)
    assert evaluations(result)["rows_within_bounds"].description == (
        "products has 200 rows; no number of rows of an earlier snapshot is known."
    )


def test_building_warns_of_nothing() -> None:
    asset = build_products_asset("products", partitions_def=catalog_partitions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_snapshot_checks(asset)


class Memory(dg.IOManager):
    """An IO manager that writes no metadata."""

    def __init__(self) -> None:
        self._frames: dict[dg.AssetKey, pl.DataFrame] = {}

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        self._frames[context.asset_key] = obj

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        return self._frames[context.asset_key].lazy()


def test_a_prefix_and_another_io_manager(instance: dg.DagsterInstance) -> None:
    @dg.asset(key_prefix=["shop"], name="products", io_manager_key="memory")
    def own() -> pl.DataFrame:
        return products(3, current_price=[-1.0, 2.0, 3.0]).select(PRODUCT_SCHEMA.names())

    assets, memory = [own, *build_snapshot_checks(own)], Memory()
    result = materialize(assets, {"memory": memory}, instance)
    assert failed(result) == {"prices"}
    checks = dg.AssetSelection.all_asset_checks()
    again = materialize(assets, {"memory": memory}, instance, selection=checks)
    assert failed(again) == {"prices"}
    assert {each.asset_key for each in again.get_asset_check_evaluations()} == {own.key}
