"""The brands of a product snapshot: a row for each brand and currency."""

from __future__ import annotations

from typing import Any

import polars as pl

from octogen_dagster.frames.brands import product_brands
from octogen_dagster.frames.columns import PRODUCT_SCHEMA


def product(brand: str | None, price: float | None, **columns: Any) -> dict[str, Any]:
    return {"brand": brand and {"name": brand}, "current_price": price, "currency": "EUR"} | columns


def brands_of(*products: dict[str, Any]) -> list[dict[str, Any]]:
    frame = pl.LazyFrame(list(products), schema=PRODUCT_SCHEMA)
    return product_brands(frame).collect().to_dicts()


def test_a_brand_has_its_number_of_products_its_stock_and_its_prices() -> None:
    products = [product("Acme", price, in_stock=price > 10) for price in (10.0, 20, 30, 40, 50)]
    assert brands_of(*products) == [
        {
            "brand": "Acme",
            "currency": "EUR",
            "products": 5,
            "in_stock_share": 0.8,
            "price_p25": 20.0,
            "price_p50": 30.0,
            "price_p75": 40.0,
        }
    ]


def test_prices_of_two_currencies_are_not_mixed() -> None:
    rows = brands_of(
        product("Acme", 10.0), product("Acme", 1500.0, currency="JPY"), product("Acme", 12.0)
    )
    assert [(row["currency"], row["products"], row["price_p75"]) for row in rows] == [
        ("EUR", 2, 12.0),
        ("JPY", 1, 1500.0),
    ]


def test_the_largest_brand_comes_first_and_products_without_one_are_a_row() -> None:
    rows = brands_of(
        product("Zen", 1.0), product(None, 1.0), product("Acme", 1.0), product(None, 1.0)
    )
    assert [(row["brand"], row["products"]) for row in rows] == [(None, 2), ("Acme", 1), ("Zen", 1)]
