"""The numbers of a read, and of the products that it brought."""

from __future__ import annotations

import math
import time
from typing import Any

import polars as pl
import pytest

from octogen_dagster.api.flow import RequestStatistics
from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.reading import Figures
from octogen_dagster.frames.statistics import ProductFigures, ReadStatistics, ScanStatistics


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
    assert statistics.figures()["cost_saved_usd"] == saved_usd


def test_shares_of_null_and_quantiles_of_the_price() -> None:
    brands = [{"name": "Acme"}, {"name": None}, None]
    rows = [{"current_price": float(price), "brand": brands[price % 3]} for price in range(1, 31)]
    rows += [{"current_price": None, "brand": brands[0]}] * 10
    figures = product_figures(rows)
    assert figures["null_share_current_price"] == 0.25
    assert figures["null_share_brand"] == 0.5
    assert figures["price_quantiles"] == {
        "no_currency": {
            f"p{share:02}": pl.Series(range(1, 31)).quantile(share / 100)
            for share in (5, 25, 50, 75, 95)
        }
    }


def test_the_quantiles_are_those_of_the_most_common_currencies() -> None:
    codes = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"]
    rows = [{"current_price": 1.0, "currency": code} for code in [*codes[1:], *codes]]
    figures = product_figures(rows)
    assert [name for name in figures if "p50" in name] == [
        f"price_p50_{code.lower()}" for code in codes[1:]
    ]


def test_a_figure_that_is_no_number_is_left_out() -> None:
    rows = [{"current_price": math.inf, "brand": {"name": "Acme"}}]
    figures = product_figures(rows)
    assert figures == {"null_share_current_price": 0.0, "null_share_brand": 0.0}


def product_figures(rows: list[dict[str, Any]]) -> Figures:
    """The figures of rows that come in frames of three."""
    figures = ProductFigures()
    for begin in range(0, len(rows), 3):
        figures.add(pl.DataFrame(rows[begin : begin + 3], schema=PRODUCT_SCHEMA))
    return figures.figures()
