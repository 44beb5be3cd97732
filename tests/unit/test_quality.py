"""Measures of tables that a test writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from octogen_dagster.frames.quality import MIN_PRICES, ProductQuality


def priced(prices: Sequence[float | None], currency: str | None = "EUR") -> pl.LazyFrame:
    uuids = [f"p{number}" for number in range(len(prices))]
    return pl.LazyFrame(
        {"uuid": uuids, "current_price": prices, "currency": [currency] * len(prices)},
        schema_overrides={"current_price": pl.Float64, "currency": pl.String},
    )


def problems(frame: pl.LazyFrame, ratio: float = 100.0) -> list[str]:
    found: list[str] = ProductQuality(frame, ratio).bad_price_rows()["problem"].to_list()
    return found


@pytest.mark.parametrize(
    ("price", "found"), [(1_001.0, 1), (1_000.0, 0), (0.09, 1), (0.1, 0), (None, 0)]
)
def test_a_price_is_far_from_the_median_of_its_currency(price: float | None, found: int) -> None:
    assert problems(priced([10.0] * MIN_PRICES + [price])) == ["far from the median"] * found


def test_a_currency_has_a_median_of_its_own() -> None:
    frames = [priced([10.0] * MIN_PRICES), priced([160_000.0] * MIN_PRICES, "KRW")]
    assert problems(pl.concat(frames)) == []
    (krw, eur) = ProductQuality(pl.concat(frames)).prices.sort("median").rows(named=True)[::-1]
    assert (krw["currency"], krw["median"], krw["lowest"]) == ("KRW", 160_000.0, 160_000.0)
    assert (eur["currency"], eur["products"], eur["bad"]) == ("EUR", MIN_PRICES, 0)


def test_products_without_a_currency_have_no_median() -> None:
    assert problems(priced([10.0] * MIN_PRICES + [1e6, -1.0], currency=None)) == ["negative"]


def test_few_prices_have_no_median() -> None:
    assert problems(priced([10.0] * (MIN_PRICES - 2) + [1e6])) == []


def test_a_uuid_is_unique_in_its_catalog() -> None:
    frame = pl.LazyFrame({"catalog_key": ["a", "b", "b"], "uuid": ["1", "1", "1"]})
    quality = ProductQuality(frame)
    assert quality.repeats == 1
    assert quality.repeated_rows().to_dicts() == [{"catalog_key": "b", "uuid": "1", "rows": 2}]
    assert ProductQuality(frame.select("uuid")).repeats == 2


def test_an_empty_table_has_no_nulls_repeats_or_prices() -> None:
    quality = ProductQuality(priced([]))
    assert (quality.rows, quality.repeats, len(quality.prices)) == (0, 0, 0)
    assert quality.null_shares == {}


def test_an_empty_file_has_no_prices(tmp_path: Path) -> None:
    priced([]).collect().write_parquet(tmp_path / "empty.parquet")
    assert ProductQuality(pl.scan_parquet(tmp_path / "empty.parquet")).prices.is_empty()


def test_the_nulls_of_a_brand_are_those_of_its_name() -> None:
    brands = [None, {"name": None, "slug": "x"}, {"name": "Acme", "slug": None}, {"name": "B"}]
    frame = pl.LazyFrame(
        {"uuid": list("abcd"), "brand": brands, "sizes": [None] * 4},
        schema_overrides={
            "brand": pl.Struct({"name": pl.String, "slug": pl.String}),
            "sizes": pl.List(pl.String),
        },
    )
    assert ProductQuality(frame).null_shares == {"uuid": 0.0, "brand": 0.5}
    assert ProductQuality(frame).null_rows(["brand"])["uuid"].to_list() == ["a", "b"]
