"""The chart of brands: a table with bars."""

import math
from typing import Any

import polars as pl
import pytest

from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.snapshots.brand_chart import MAX_BRANDS, brand_chart


def chart(*brands: dict[str, Any]) -> list[list[str]]:
    """Return the cells of the rows."""
    lines = brand_chart(pl.LazyFrame(list(brands), schema=BRANDS_SCHEMA)).splitlines()
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines[2:]]
    return [[cell.strip() for cell in row] for row in rows]


def brand(name: str | None, products: int, *prices: float, currency: str = "EUR") -> dict[str, Any]:
    quartiles = dict(zip(("price_p25", "price_p50", "price_p75"), prices, strict=False))
    return {"brand": name, "products": products, "currency": currency, **quartiles}


def test_a_bar_is_as_long_as_its_share_of_the_largest_brand() -> None:
    rows = chart(brand("Acme", 2400), brand("Zen", 1250), brand("Nord", 1))
    assert [row[:3] for row in rows] == [
        ["Acme", "2,400", "████████████"],
        ["Zen", "1,250", "██████▎"],
        ["Nord", "1", "▏"],
    ]


@pytest.mark.parametrize("price", [math.inf, math.nan, 0.0, -1.0])
def test_prices_that_have_no_scale_have_no_range(price: float) -> None:
    assert chart(brand("Acme", 1, 1.0, 1.0, price))[0][-1] == ""


def test_ranges_of_a_currency_have_one_scale() -> None:
    rows = chart(
        brand("Acme", 3, 10.0, 20.0, 40.0),
        brand("Zen", 2, 10.0, 10.0, 20.0),
        brand("Kyo", 1, 1000.0, 2000.0, 4000.0, currency="JPY"),
    )
    assert [row[3:] for row in rows] == [
        ["20.00 EUR", "┄┄┄━━━●━━━━━"],
        ["10.00 EUR", "┄┄┄●━━━┄┄┄┄┄"],
        ["2,000.00 JPY", "┄┄┄━━━●━━━━━"],
    ]


def test_a_brand_without_prices_has_no_range() -> None:
    rows = chart(brand("Acme", 3), brand("Zen", 2, 0.0, 0.0, 0.0, currency="JPY"))
    assert [row[3:] for row in rows] == [["", ""], ["0.00 JPY", ""]]


def test_a_price_below_zero_is_at_the_beginning_of_its_range() -> None:
    assert chart(brand("Nord", 1, -5.0, -1.0, 4.0))[0][4] == "●━━━━━━━━━━━"


def test_the_chart_has_eight_brands_and_none_without_a_name() -> None:
    rows = chart(brand(None, 99), *(brand(f"Brand {number}", 20 - number) for number in range(12)))
    assert [row[0] for row in rows] == [f"Brand {number}" for number in range(MAX_BRANDS)]


def test_the_chart_is_shown_in_place_however_long_the_names_are() -> None:
    wide = [brand("Brand | of a name " * 9, 9**8, 9**7, 9**7, 9**7) for _ in range(MAX_BRANDS)]
    assert len(brand_chart(pl.LazyFrame(wide, schema=BRANDS_SCHEMA))) < 1000


def test_there_is_no_chart_without_brands() -> None:
    assert brand_chart(BRANDS_SCHEMA.to_frame().lazy()) == ""
