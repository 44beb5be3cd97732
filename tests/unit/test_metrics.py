"""The brands of a product snapshot: a row for each brand and currency."""

from __future__ import annotations

import math
import time
from typing import Any

import polars as pl
import pytest

from octogen_dagster.alerts.events import ALERTS_SCHEMA
from octogen_dagster.alerts.update import alerts_preview
from octogen_dagster.api.flow import RequestStatistics
from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.brands.table import product_brands
from octogen_dagster.changes.table import CHANGES_KIND
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.markdown import inline_table, markdown_table
from octogen_dagster.frames.products import PRODUCTS_KIND
from octogen_dagster.frames.source import Metrics
from octogen_dagster.reading.statistics import ProductMetrics, ReadStatistics, ScanStatistics
from tests.properties.snapshots import changes_of


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


# The rows and columns that are shown of a snapshot.


def products(*rows: dict[str, Any]) -> pl.LazyFrame:
    known = {"catalog_key": "acme", "product_url": "https://shop.example/1", "currency": "EUR"}
    return pl.LazyFrame([known | row for row in rows], schema=PRODUCT_SCHEMA)


def test_changes_are_shown_with_the_values_before_and_after() -> None:
    before = products(
        {"uuid": "1", "title": "Boot", "current_price": 20.0, "in_stock": True},
        {"uuid": "2", "title": "Sandal", "current_price": 5.0},
        {"uuid": "3", "title": "Clog", "current_price": 5.0},
        {"uuid": "5", "title": "Mule", "current_price": 5.0, "in_stock": True},
    )
    after = products(
        {"uuid": "1", "title": "Boot", "current_price": 15.0, "in_stock": False},
        {"uuid": "3", "title": "Clog"},
        {"uuid": "4", "title": "Slipper", "current_price": 7.0},
        {
            "uuid": "5",
            "title": "Mule II",
            "current_price": 5.0,
            "in_stock": True,
            "currency": "USD",
        },
    )
    changes, _ = changes_of(before, after, {})
    shown = CHANGES_KIND.preview(changes.lazy()).with_columns(
        product=pl.col("product").struct.field("text")
    )
    assert shown.rows() == [
        ("changed", "Boot", "20.00 → 15.00 EUR", "in stock → sold out"),
        ("changed", "Clog", "5.00 → none", ""),
        ("changed", "Mule → Mule II", "5.00 EUR → 5.00 USD", "in stock"),
        ("appeared", "Slipper", "7.00 EUR", ""),
        ("disappeared", "Sandal", "5.00 EUR", ""),
    ]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (1.0, 100.0, "+9,900 %"),
        (200.0, 180.0, "-10 %"),
        (1000.0, 1.0, "-99.9 %"),
        (1_000_000.0, 1.0, "-99.9 %"),
        (200.0, 1.0, "-99.5 %"),
    ],
)
def test_change_of_a_price_is_never_all_of_it(before: float, after: float, shown: str) -> None:
    event = {"before": before, "after": after, "change_percent": 100 * after / before - 100}
    preview = alerts_preview(pl.DataFrame([event], schema=ALERTS_SCHEMA))
    assert preview["change"].to_list() == [shown]


def test_a_column_that_has_nothing_to_show_is_left_out() -> None:
    assert PRODUCTS_KIND.preview(products({"title": "Boot"})).columns == ["product"]
    assert PRODUCTS_KIND.preview(products()).is_empty()


# The numbers of a read, and of the products that it brought.


def test_the_speed_of_a_read_under_way_is_that_of_the_last_minute() -> None:
    statistics = ReadStatistics()
    for seconds, rows in ((5.0, 50_000), (10.0, 50_100), (100.0, 51_000), (130.0, 51_300)):
        statistics.received_rows = rows
        statistics._began = time.monotonic() - seconds
        statistics.update(RequestStatistics(), Spending())
    assert statistics.speed(52_000) == "10 a second, about 70 s left"


@pytest.mark.parametrize(
    ("expected", "complete", "text"),
    [
        (None, False, "950 a second"),
        (3_800, False, "950 a second, about 2 s left"),
        (1_900, False, "950 a second"),
        (1_000, False, "950 a second"),
        (3_800, True, "950 a second"),
    ],
)
def test_the_speed_says_how_long_the_rest_takes(
    expected: int | None, complete: bool, text: str
) -> None:
    statistics = ReadStatistics(rows=1_900, received_rows=1_900, seconds=2.0, complete=complete)
    assert statistics.speed(expected) == text


@pytest.mark.parametrize(
    ("resumed", "cost_usd", "saved_usd"),
    [
        (0, 5.0, 0.0),  # nothing was saved
        (5, 0.0, 5.0),  # all pages were saved
        (3, 4.0, 1.0),  # two saved pages were requested once more, to compare them
        (1, 6.0, 0.0),  # comparing cost more than it saved
    ],
)
def test_saved_pages_are_worth_what_the_run_was_spared(
    resumed: int, cost_usd: float, saved_usd: float
) -> None:
    statistics = ScanStatistics(
        rows=500, pages=5, resumed_pages=resumed, cost_usd=cost_usd, prices=Prices(1.0)
    )
    assert statistics.metrics()["cost_saved_usd"] == saved_usd


def test_a_brand_without_a_name_counts_as_null() -> None:
    brands = [{"name": "Acme"}, {"name": None}, None, {"name": "Acme"}]
    metrics = product_metrics([{"current_price": 1.0, "brand": brand} for brand in brands])
    assert metrics["null_share_brand"] == 0.5
    assert isinstance(metrics["null_fractions"], dict)
    assert metrics["null_fractions"]["brand"] == 0.5


def test_the_quantiles_are_those_of_the_most_common_currencies() -> None:
    codes = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"]
    rows = [{"current_price": 1.0, "currency": code} for code in [*codes[1:], *codes]]
    metrics = product_metrics(rows)
    assert [name for name in metrics if "p50" in name] == [
        f"price_p50_{code.lower()}" for code in codes[1:]
    ]


def test_a_figure_that_is_no_number_is_left_out() -> None:
    rows = [{"current_price": math.inf, "brand": {"name": "Acme"}}]
    metrics = product_metrics(rows)
    assert metrics.keys() == {"null_share_current_price", "null_share_brand", "null_fractions"}


def product_metrics(rows: list[dict[str, Any]]) -> Metrics:
    """The figures of rows that come in frames of three."""
    metrics = ProductMetrics()
    for begin in range(0, len(rows), 3):
        metrics.add(pl.DataFrame(rows[begin : begin + 3], schema=PRODUCT_SCHEMA))
    return metrics.metrics()


# Frames as Markdown tables.


LINK = f"https://acme.example/{'x' * 90}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("two\nlines,\ttabs  and spaces", "two lines, tabs and spaces"),
        (None, ""),
        (False, "False"),
        (0, "0"),
        (0.87771929, "0.8777"),
        (["S", "M"], "['S', 'M']"),
        ("<img src=x> *NSYNC*", "\\<img src=x> \\*NSYNC\\*"),
        ("![](http://shop.example/a.png)", "![]\\(http://shop.example/a.png)"),
        ("http://a.example [b](http://c.example)", "http://a.example [b]\\(http://c.example)"),
        ("https://a.example/<img/src=x>", "https://a.example/\\<img/src=x>"),
        ("https://a.example/~b_c?x=(1)*", "https://a.example/~b_c?x=(1)*"),
        ("Boot (men) [new]", "Boot (men) [new]"),
        ("`a` ~~b~~", "\\`a\\` \\~\\~b\\~\\~"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("|" * 81, "\\|" * 79 + "…"),
        (LINK, LINK),
        ({"slug": "acme", "name": "Acme | Co"}, "Acme \\| Co"),
        ({"average": 4.5, "count": 12, "source": None}, "4.5, 12"),
        ({"name": None, "average": 4.5, "count": 12, "source": ""}, "4.5, 12"),
        ({"name": None, "slug": None}, ""),
    ],
)
def test_a_cell_is_short_text_without_markup(value: Any, shown: str) -> None:
    line = markdown_table(pl.DataFrame({"value": [value]})).splitlines()[2]
    assert line.removeprefix("| ").removesuffix(" |") == shown


def test_a_table_in_place_has_less_than_1000_characters_and_at_least_a_row() -> None:
    frame = pl.DataFrame({"title": ["👟" * 40] * 30})
    rows = len(inline_table(frame).splitlines()) - 2
    assert rows == 11  # a shoe is two characters for JavaScript
    assert inline_table(frame.head(rows)) == markdown_table(frame.head(rows))
    wide = pl.DataFrame({f"c{number}": ["x" * 80] * 2 for number in range(20)})
    assert inline_table(wide) == markdown_table(wide.head(1))
