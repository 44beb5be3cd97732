"""The checks of snapshots: which an asset has, what they find, and how Dagster runs them."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from tests.projects import Project
from tests.promises.runs.checked import ALL, CheckedAsset, evaluations, failed, numbers, products
from tests.results import of_range

PRODUCTS = od.build_products_asset("products")
CHECKS = dg.AssetSelection.all_asset_checks()


@pytest.fixture
def asset(tmp_path: Path, instance: dg.DagsterInstance) -> CheckedAsset:
    """An asset of products, with two catalogs in the instance."""
    instance.add_dynamic_partitions("octogen_catalogs", ["acme", "zen"])
    return CheckedAsset(tmp_path, instance)


def names(asset: dg.AssetsDefinition, **settings: Any) -> set[str]:
    """The names of an asset's checks."""
    return {
        key.name for each in od.build_snapshot_checks(asset, **settings) for key in each.check_keys
    }


@pytest.mark.slow
def test_products_details_and_changes_have_the_checks_that_make_sense(project: Project) -> None:
    history, details = (
        od.build_product_history_asset(PRODUCTS),
        od.build_product_details_asset(PRODUCTS),
    )
    changes = od.build_product_changes_asset(history)
    assert names(PRODUCTS) == names(details) == ALL
    assert names(od.build_catalogs_asset()) == {"fresh"}
    for derived in (changes, od.build_product_brands_asset(PRODUCTS)):
        assert names(derived) == set()
        assert names(derived, max_age=timedelta(days=2)) == {"fresh"}

    checks = [
        each for asset in (PRODUCTS, changes, details) for each in od.build_snapshot_checks(asset)
    ]
    result = project.run([PRODUCTS, history, changes, details, *checks])
    found = result.get_asset_check_evaluations()
    assert len(found) == 8
    assert {each.passed for each in found} == {True}
    assert all(each.description and "octogen/sample" not in each.metadata for each in found)


def test_a_partition_of_a_catalog_has_results_of_its_own(project: Project) -> None:
    project.instance.add_dynamic_partitions("octogen_catalogs", ["strada", "northpeak"])
    asset = od.build_products_asset("products", od.ProductSearch(q="boots"), od.catalog_partitions)
    assets = [asset, *od.build_snapshot_checks(asset)]
    for catalog, awaited in (("strada", 1), ("northpeak", 0)):
        result = project.run(assets, partition_key=catalog)
        found = evaluations(result)
        assert {name: each.partition for name, each in found.items()} == {
            **dict.fromkeys(ALL, catalog),
            "fresh": None,
        }
        assert failed(result) == set()
        assert numbers(found["fresh"])["awaited"] == awaited


def test_an_asset_of_ones_own_has_the_checks_of_the_columns_that_it_declares(
    project: Project,
) -> None:
    columns = dg.TableSchema([dg.TableColumn(name) for name in ("uuid", "title", "price")])

    @dg.asset(metadata={"dagster/column_schema": columns})
    def own() -> pl.DataFrame:
        return pl.DataFrame({"uuid": ["a"], "title": ["Shoe"]})

    assert names(own) == {"rows_within_bounds", "nulls", "fresh"}
    for limits, wrong in (({"title": 0.0}, set()), ({"price": 0.0}, {"nulls"})):
        assets = [own, *od.build_snapshot_checks(own, max_null_percent=limits)]
        result = project.run(assets)
        assert failed(result) == wrong
    description = str(evaluations(result)["nulls"].description)
    assert description.startswith("own has no column price. ")
    assert "exclude the 'nulls' check" in description


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"max_age": None}, {"fresh"}),
        ({"max_rows_change_percent": None}, {"rows_within_bounds"}),
        ({"max_null_percent": None}, {"nulls"}),
        ({"max_bad_price_percent": None}, {"prices"}),
        ({"exclude": ["nulls"]}, {"nulls"}),
        ({"exclude": ["nulls", "prices"]}, {"nulls", "prices"}),
        ({"exclude": sorted(ALL)}, ALL),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_check_is_left_out(settings: dict[str, Any], left_out: set[str]) -> None:
    assert names(PRODUCTS, **settings) == ALL - left_out


@pytest.mark.parametrize(
    ("setting", "share", "percent"),
    [
        ("max_rows_change_percent", 0.3, "30"),
        ("max_null_percent", {"title": 0.2}, "20"),
        ("max_bad_price_percent", 0.001, "0.1"),
    ],
)
def test_a_limit_that_may_be_meant_as_a_share_is_warned_of(
    setting: str, share: Any, percent: str
) -> None:
    with pytest.warns(UserWarning, match=f"^{setting}.*If you mean {percent} %, write {percent}."):
        od.build_snapshot_checks(PRODUCTS, **{setting: share})


@pytest.mark.slow
@pytest.mark.parametrize("partition", [None, "acme"])
def test_a_failed_check_that_blocks_keeps_what_is_downstream_from_running(
    asset: CheckedAsset, partition: str | None
) -> None:
    asset.partitions_def = od.catalog_partitions if partition else None
    asset.frame = products(title=[None] * 20)

    def materialized() -> set[str]:
        events = asset.run(partition).get_asset_materialization_events()
        return {each.asset_key.to_user_string() for each in events if each.asset_key}

    assert materialized() == {"products", "downstream"}
    asset.settings = {"blocking": True}
    assert materialized() == {"products"}
    asset.frame = products(20)
    asset.settings["max_age"] = timedelta(microseconds=1)  # a stale catalog blocks nothing
    assert materialized() == {"products", "downstream"}


def test_the_severity_is_that_of_all_checks(asset: CheckedAsset) -> None:
    asset.frame = products(2, title=[None, None])
    assert asset.check("nulls").severity is dg.AssetCheckSeverity.ERROR
    asset.settings = {"severity": dg.AssetCheckSeverity.WARN}
    assert asset.check("nulls").severity is dg.AssetCheckSeverity.WARN


def test_a_check_runs_on_its_own(asset: CheckedAsset) -> None:
    asset.partitions_def = od.catalog_partitions
    asset.run("acme")
    prices = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("products"), "prices"))
    result = asset.run(selection=prices, tags={"dagster/partition": "acme"})
    assert evaluations(result).keys() == {"prices"}
    assert not result.get_asset_materialization_events()


class Memory(dg.IOManager):
    """An IO manager that writes no metadata."""

    frame = pl.DataFrame()

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        self.frame = obj

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        return self.frame.lazy()


def test_a_prefix_and_another_io_manager(instance: dg.DagsterInstance) -> None:
    @dg.asset(key_prefix=["shop"], name="products", io_manager_key="memory")
    def own() -> pl.DataFrame:
        return products(3, current_price=[-1.0, 2.0, 3.0]).drop("original_price")

    assets, resources = [own, *od.build_snapshot_checks(own)], {"memory": Memory()}
    result = dg.materialize(assets, resources=resources, instance=instance)
    assert failed(result) == {"prices"}
    again = dg.materialize(assets, resources=resources, instance=instance, selection=CHECKS)
    assert failed(again) == {"prices"}
    assert {each.asset_key for each in again.get_asset_check_evaluations()} == {own.key}


def test_a_limit_of_zero_allows_none(asset: CheckedAsset) -> None:
    asset.settings = {"max_null_percent": {"title": 0}}
    asset.frame = products(10, title=[None] + ["Shoe"] * 9)
    found = evaluations(asset.run())["nulls"]
    assert " title is null in 1 of 10 rows (10 %, limit 0 %). " in str(found.description)


def test_a_column_with_too_many_nulls(asset: CheckedAsset) -> None:
    asset.frame = products(10, title=[None] * 3 + ["Shoe"] * 7)
    result = asset.run()
    assert failed(result) == {"nulls"}
    found = evaluations(result)["nulls"]
    text = "products has bad rows: title is null in 3 of 10 rows (30 %, limit 20 %). "
    assert str(found.description).startswith(text)
    assert "max_null_percent" in str(found.description)
    shown = numbers(found)
    assert (shown["rows"], shown["bad_rows"]) == (10, 3)
    assert shown["bad_rows_by_rule"]["title is null"] == 3
    header, _, *rows = shown["sample"].splitlines()
    assert header == "| problem | catalog_key | uuid | product_url | title |"
    assert rows[0] == "| title is null | acme | p0 | https://acme.example/0 |  |"
    assert len(rows) == 3


def test_a_brand_without_a_name_is_no_brand(asset: CheckedAsset) -> None:
    slug = {"name": None, "slug": "x"}
    asset.frame = products(4, brand=[None, slug, {"name": "Acme"}, {"name": "B"}])
    asset.settings = {"max_null_percent": {"brand": 50}}
    assert asset.check("nulls").passed
    asset.settings = {"max_null_percent": {"brand": 40}}
    assert numbers(asset.check("nulls"))["bad_rows"] == 2


def test_prices_that_are_wrong(asset: CheckedAsset) -> None:
    asset.frame = products(
        14,
        current_price=[10.0] * 10 + [-1.0, 0.0, 9.0, 5_000.0],
        original_price=[None] * 12 + [8.0, None],
    )
    result = asset.run()
    assert failed(result) == {"prices"}
    found = evaluations(result)["prices"]
    each = "in 1 of 14 rows (7.14 %, limit 0.1 %)"
    assert str(found.description).startswith(
        f"products has bad rows: a price is negative {each}; current_price is zero {each}; "
        f"original_price is below current_price {each}; current_price is far from the median of "
        f"its currency {each}. "
    )
    assert "max_bad_price_percent and price_outlier_ratio" in str(found.description)
    shown = numbers(found)
    assert shown["bad_rows"] == 4
    assert [line.split(" | ")[2] for line in shown["sample"].splitlines()[2:]] == [
        *("p10", "p11", "p12", "p13")
    ]
    asset.settings = {"max_bad_price_percent": 8}
    assert asset.check("prices").passed


@pytest.mark.parametrize(
    ("prices", "currencies", "bad"),
    [
        ([10.0] * 10 + [1_001.0], ["EUR"], 1),
        ([10.0] * 10 + [1_000.0], ["EUR"], 0),
        ([10.0] * 10 + [0.09], ["EUR"], 1),
        ([10.0] * 10 + [0.1, None], ["EUR"], 0),
        ([10.0] * 8 + [1e6], ["EUR"], 0),  # of few prices nobody knows what is usual
        ([10.0] * 10 + [1e6], [None], 0),  # products without a currency may be priced in several
        ([10.0, 160_000.0] * 10, ["EUR", "KRW"], 0),
        ([], [], 0),
    ],
)
def test_a_price_is_compared_with_the_median_of_its_currency(
    asset: CheckedAsset, prices: list[float | None], currencies: list[str | None], bad: int
) -> None:
    count = len(prices)
    asset.frame = products(count, current_price=prices, currency=(currencies * count)[:count])
    asset.settings = {"max_bad_price_percent": 0}
    found = asset.check("prices")
    assert (found.passed, numbers(found)["bad_rows"]) == (not bad, bad)


def test_prices_of_ones_own_that_are_text_fail_the_check(asset: CheckedAsset) -> None:
    asset.frame = products(20).cast({"original_price": pl.String})
    assert asset.check("prices").passed, "they are all null"
    asset.frame = products(20).cast({"current_price": pl.String})
    found = asset.check("prices")
    assert not found.passed
    assert "current_price is String, not a number, in 20 of 20 rows" in (found.description or "")


def test_a_price_that_is_nan_is_none(asset: CheckedAsset) -> None:
    asset.frame = products(20, current_price=[float("nan")] * 6 + [10.0] * 14)
    assert asset.check("prices").passed
    assert numbers(asset.check("nulls"))["bad_rows"] == 6


def test_a_column_of_ones_own_may_have_any_name(asset: CheckedAsset) -> None:
    asset.frame = products(4, title=[None] * 4).with_columns(row=1, problem=2)
    assert numbers(asset.check("nulls"))["bad_rows"] == 4


@pytest.mark.slow
def test_more_or_fewer_rows_than_the_last_snapshots(asset: CheckedAsset) -> None:
    for rows in (100, 110, 90):
        asset.frame = products(rows)
        assert asset.check("rows_within_bounds").passed
    asset.frame = products(69)
    found = asset.check("rows_within_bounds")
    assert not found.passed
    assert str(found.description).startswith(
        "products has 69 rows. The expected row count is 70 to 130, based on 3 "
    )
    assert "max_rows_change_percent" in str(found.description)
    assert numbers(found) == {
        "rows": 69,
        "rows_low": 70,
        "rows_high": 130,
        "earlier_rows": [90, 110, 100],
    }
    asset.frame = products(131)
    assert not asset.check("rows_within_bounds").passed


def test_a_few_rows_more_are_no_change_of_a_small_search(asset: CheckedAsset) -> None:
    for rows in (2, 12, 1):
        asset.frame = products(rows)
        assert asset.check("rows_within_bounds").passed


def earlier(asset: CheckedAsset, rows: int, partition: str | None = None) -> list[int]:
    """Materialize a number of rows, and return those that the number is compared with."""
    asset.frame = products(rows)
    found = numbers(asset.check("rows_within_bounds", partition))
    return list(found.get("earlier_rows", []))


def day(age: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=age):%Y-%m-%d}"


@pytest.mark.slow
def test_rows_are_compared_with_the_last_five_that_were_replaced(asset: CheckedAsset) -> None:
    found = [earlier(asset, rows) for rows in range(100, 107)]
    assert found[0] == []
    assert found[3] == [102, 101, 100]
    assert found[6] == [105, 104, 103, 102, 101]


def test_rows_are_compared_with_those_of_the_same_search(asset: CheckedAsset) -> None:
    found = []
    for rows, keywords, page_size in [
        *((10, "boots", 100), (99, "all", 100), (11, "boots", 20), (98, "all", 100))
    ]:
        search = {"q": keywords, "page_size": page_size}
        asset.metadata = {"octogen/search": dg.MetadataValue.json(search)}
        found.append(earlier(asset, rows))
    assert found == [[], [], [10], [99]]


def test_rows_are_compared_with_those_of_the_same_catalog(asset: CheckedAsset) -> None:
    asset.partitions_def = od.catalog_partitions
    assert earlier(asset, 10, "acme") == []
    assert earlier(asset, 20, "zen") == []
    assert earlier(asset, 11, "acme") == [10]


@pytest.mark.slow
def test_rows_are_compared_with_the_last_of_each_of_the_days_before(asset: CheckedAsset) -> None:
    asset.partitions_def = od.catalog_days("2026-01-01")
    assert earlier(asset, 10, f"acme|{day(41)}") == []
    assert earlier(asset, 10, f"acme|{day(9)}") == []
    assert earlier(asset, 11, f"acme|{day(9)}") == []
    assert earlier(asset, 12, f"zen|{day(1)}") == []
    assert earlier(asset, 13, f"acme|{day(0)}") == [11]
    assert earlier(asset, 14, f"acme|{day(1)}") == [11]  # a day after it is of no interest
    assert earlier(asset, 15, f"acme|{day(0)}") == [14, 11]


def test_rows_of_a_snapshot_whose_materialization_is_gone_are_compared_with_none(
    asset: CheckedAsset,
) -> None:
    asset.partitions_def = od.snapshot_days("2026-01-01")
    asset.run(day(0))
    with dg.DagsterInstance.ephemeral() as wiped:
        asset = dataclasses.replace(asset, instance=wiped)
        asset.run(day(1))
        rows = dg.AssetSelection.checks(
            dg.AssetCheckKey(dg.AssetKey("products"), "rows_within_bounds")
        )
        result = asset.run(selection=rows, tags={"dagster/partition": day(0)})
    found = evaluations(result)["rows_within_bounds"]
    assert found.passed
    assert "no earlier snapshot" in str(found.description)


def test_a_run_of_several_partitions_checks_the_rows_of_all_and_compares_them_with_none(
    asset: CheckedAsset,
) -> None:
    asset.partitions_def = od.snapshot_days("2026-11-01")
    asset.frame = products(100)
    asset.run("2026-11-01")
    asset.run("2026-11-02")
    tags = of_range("2026-11-01", "2026-11-02")
    found = evaluations(asset.run(selection=CHECKS, tags=tags))
    assert numbers(found["nulls"])["rows"] == 200
    description = str(found["rows_within_bounds"].description)
    assert description.startswith("products has 200 rows. There is no earlier snapshot")
