"""Each check passes on right products, and fails on wrong ones with numbers and a sample."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from tests.snapshots.checked import CheckedAsset, evaluations, failed, numbers, products


@pytest.fixture
def asset(tmp_path: Path, instance: dg.DagsterInstance) -> CheckedAsset:
    """An asset without partitions."""
    return CheckedAsset(tmp_path, instance)


def test_right_products_pass_all_checks(asset: CheckedAsset) -> None:
    result = asset.run()
    assert failed(result) == set()
    for each in evaluations(result).values():
        assert each.description
        assert "octogen/sample" not in each.metadata


def test_an_empty_snapshot(asset: CheckedAsset) -> None:
    asset.frame = products(0)
    result = asset.run()
    assert failed(result) == {"not_empty"}
    found = evaluations(result)["not_empty"]
    assert found.description == (
        "products has 0 rows. Correct the filters of the search, or ask Octogen whether the API "
        "key may read the catalog."
    )
    assert numbers(found) == {"rows": 0}


def test_a_product_that_is_there_twice(asset: CheckedAsset) -> None:
    asset.frame = products(3, uuid=["a", "b", "a"])
    result = asset.run()
    assert failed(result) == {"unique_uuid"}
    found = evaluations(result)["unique_uuid"]
    assert found.description == (
        "products: 1 of 3 rows repeat a product of their catalog. Materialize it again. If the "
        "asset is your own, keep one row of each uuid."
    )
    shown = numbers(found)
    assert (shown["rows"], shown["repeated_rows"]) == (3, 1)
    assert "| acme | a | https://acme.example/" in shown["sample"]
    assert shown["sample"].endswith("| 2 |")


def test_fewer_products_than_the_source_counts(asset: CheckedAsset) -> None:
    asset.metadata = {"octogen/expected_rows": 21}
    assert asset.check("complete").passed  # 4.8 %
    asset.metadata = {"octogen/expected_rows": 22}
    found = asset.check("complete")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == (
        "products has 20 of the 22 products that the source counts; 9.09 % are missing, 5 % may "
        "be. The source may have counted on another day. Materialize it again later: from then on "
        "a snapshot is compared with what the count meant in the last one. Ask Octogen about the "
        "catalog if products are still missing."
    )
    assert numbers(found) == {"rows": 20, "expected_rows": 22, "missing_share": 0.090909}
    asset.metadata = {"octogen/expected_rows": 22, "octogen/rows_per_product": 0.5}
    found = asset.check("complete")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found.description == (
        "products has 20 of the 22 products to expect, 0.5 for each that the source counts, as in "
        "the last snapshot; 9.09 % are missing, 5 % may be. The source may have counted on another "
        "day. Materialize it again later. Ask Octogen about the catalog if products are still "
        "missing."
    )
    asset.metadata = {"octogen/expected_rows": 0}
    assert asset.check("complete").passed


def test_a_count_that_is_not_known_passes(asset: CheckedAsset) -> None:
    found = asset.check("complete")
    assert found.passed
    assert found.description == "products: the number of its products at the source is not known."


def test_a_search_that_ended_at_its_cap(asset: CheckedAsset) -> None:
    asset.metadata = {"octogen/truncated": False}
    assert asset.check("not_truncated").description == "products was read to its end."
    asset.metadata = {"octogen/truncated": True, "octogen/search": {"max_products": 20}}
    found = asset.check("not_truncated")
    assert not found.passed
    assert found.description == (
        "products ends at max_products 20, and more products match. Raise or remove max_products "
        "of the search, or leave this check out with exclude=['not_truncated']."
    )
    assert numbers(found) == {"rows": 20, "max_products": 20}


def test_more_or_fewer_rows_than_the_last_snapshots(asset: CheckedAsset) -> None:
    for rows in (100, 110, 90):
        asset.frame = products(rows)
        assert asset.check("rows_within_bounds").passed
    asset.frame = products(69)
    found = asset.check("rows_within_bounds")
    assert not found.passed
    assert found.description == (
        "products has 69 rows; 70 to 130 are expected after the last 3 snapshots. Look at the "
        "changes of the products. If the number is right, the next snapshots are compared with "
        "it; max_rows_change sets the limit."
    )
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


def test_a_column_with_too_many_nulls(asset: CheckedAsset) -> None:
    asset.frame = products(10, title=[None] * 3 + ["Shoe"] * 7)
    result = asset.run()
    assert failed(result) == {"nulls"}
    found = evaluations(result)["nulls"]
    assert found.description == (
        "products: title is null in 30 % of the rows, 20 % are allowed. Ask Octogen whether it "
        "still has these values, or set max_null_share and max_null_growth."
    )
    shown = numbers(found)
    assert (shown["rows"], shown["columns_with_too_many_nulls"]) == (10, 1)
    assert shown["null_shares"]["title"] == 0.3
    assert shown["sample"].splitlines()[2] == "| acme | p0 | https://acme.example/0 |  |"


def test_a_column_that_loses_its_values(asset: CheckedAsset) -> None:
    asset.frame = products(10, in_stock=[True] * 10)
    assert asset.check("nulls").passed
    asset.frame = products(10, in_stock=[None] * 2 + [True] * 8)
    assert asset.check("nulls").passed
    asset.frame = products(10, in_stock=[None] * 5 + [True] * 5)
    found = asset.check("nulls")
    assert not found.passed
    assert str(found.description).startswith(
        "products: in_stock is null in 50 % of the rows, 40 % are allowed."
    )
    repeated = asset.run(selection=dg.AssetSelection.all_asset_checks())
    assert "nulls" in failed(repeated)  # the same snapshot is not compared with itself


def test_prices_that_are_wrong(asset: CheckedAsset) -> None:
    asset.frame = products(
        14,
        current_price=[10.0] * 10 + [-1.0, 0.0, 9.0, 5_000.0],
        original_price=[None] * 12 + [8.0, None],
    )
    result = asset.run()
    assert failed(result) == {"prices"}
    found = evaluations(result)["prices"]
    assert found.description == (
        "products: bad prices in EUR: 4 (28.6 %), 0.1 % are allowed. Compare the sample with the "
        "shop, and tell Octogen if it is right there. max_bad_price_share and "
        "price_outlier_ratio set the limits."
    )
    shown = numbers(found)
    assert (shown["priced_products"], shown["bad_prices"]) == (14, 4)
    lines = shown["sample"].splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| negative",
        "| zero",
        "| original below current",
        "| far from the median",
    ]
    assert shown["prices_by_currency"].splitlines()[2].startswith("| EUR | 14 | 14 | -1.0 | 10.0 |")


def test_each_currency_has_its_own_limit(asset: CheckedAsset) -> None:
    currencies = ["EUR"] * 97 + [None] * 3
    asset.frame = products(
        100, currency=currencies, current_price=[1.0] * 96 + [0.0] + [1.0, 1.0, -1.0]
    )
    asset.settings = {"max_bad_price_share": 0.05}
    found = asset.check("prices")
    assert str(found.description).startswith(
        "products: bad prices in no currency: 1 (33.3 %), 5 % are allowed."
    )


def test_columns_that_changed(asset: CheckedAsset) -> None:
    asset.run()
    asset.frame = (
        products()
        .drop("rating")
        .with_columns(pl.col("title").cast(pl.Categorical), pl.lit(1).alias("new"))
    )
    found = asset.check("schema_unchanged")
    assert not found.passed
    assert found.description == (
        "products: 4 columns or fields of columns differ from those of the last snapshot. Read "
        "the changelog of octogen-dagster if its version changed, and adapt what reads these "
        "columns. The next snapshot is compared with this one."
    )
    shown = numbers(found)
    assert (shown["columns"], shown["changed_columns"]) == (23, 4)
    assert [line.split(" | ")[0] for line in shown["sample"].splitlines()] == [
        "| column",
        "| ---",
        "| title",
        "| new",
        "| rating.average",
        "| rating.count",
    ]
    assert asset.check("schema_unchanged").passed


def test_a_field_of_a_struct_that_changed(asset: CheckedAsset) -> None:
    assert asset.check("schema_unchanged").passed
    brand = pl.Struct({"name": pl.String, "founded": pl.Int64})
    asset.frame = products().with_columns(
        pl.lit(None, brand).alias("brand"),
        pl.lit([], pl.List(pl.List(pl.Struct({"name": pl.String})))).alias("images"),
    )
    found = asset.check("schema_unchanged")
    assert not found.passed
    shown = numbers(found)["sample"].splitlines()
    assert "| brand.founded |  | Int64 |" in shown
    assert "| brand.slug | String |  |" in shown
    assert "| images[][].name |  | String |" in shown
    assert not any("brand.name" in line for line in shown)


def test_prices_that_are_no_numbers(asset: CheckedAsset) -> None:
    asset.frame = products(2, currency=["EUR", "EUR"]).with_columns(
        pl.lit("9,90").alias("current_price"), pl.lit(None, pl.Null).alias("original_price")
    )
    found = asset.check("prices")
    assert not found.passed
    assert found.description == (
        "products has prices that are no numbers: current_price (String). Store them as numbers, "
        "or leave this check out with `exclude`."
    )
    asset.frame = products(2).with_columns(pl.lit(None, pl.Null).alias("original_price"))
    assert asset.check("prices").passed


def test_fields_that_the_schema_does_not_know(asset: CheckedAsset) -> None:
    asset.metadata = {
        "octogen/unknown_fields": 7,
        "octogen/unknown_field_names": {"items.mood": 5, "items.brand.age": 2},
    }
    result = asset.run()
    assert failed(result) == {"unknown_fields"}
    found = evaluations(result)["unknown_fields"]
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.description == (
        "products: the service sent 2 fields that the schema does not know. They are not stored. "
        "Upgrade octogen-dagster if a later version has them."
    )
    shown = numbers(found)
    assert shown["unknown_fields"] == 7
    assert shown["sample"].splitlines()[2:] == ["| items.mood | 5 |", "| items.brand.age | 2 |"]


@pytest.mark.parametrize(
    ("column", "check"),
    [("uuid", "unique_uuid"), ("currency", "prices"), ("title", "nulls")],
)
def test_a_column_that_a_check_needs_is_missing(
    asset: CheckedAsset, column: str, check: str
) -> None:
    asset.frame = products().drop(column)
    found = asset.check(check)
    assert not found.passed
    assert found.description == (
        f"products has no column {column}. Store the column, or leave this check out with "
        "`exclude`."
    )
