"""The numbers of a read, and of the products that it brought."""

from __future__ import annotations

import math
import time
from collections import Counter
from datetime import datetime, timezone
from typing import Any

import polars as pl
import pytest

from octogen_dagster.api.flow import RequestStatistics
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.reading import Figures
from octogen_dagster.frames.statistics import ProductFigures, ReadStatistics, ScanStatistics

STARTED_AT = datetime(2026, 11, 25, 6, 0, tzinfo=timezone.utc)


def test_the_figures_are_rounded_and_named_with_their_units() -> None:
    statistics = ReadStatistics(
        started_at=STARTED_AT,
        rows=1_000,
        requests=12,
        retries=2,
        rate_limit_wait_seconds=1.23456,
        seconds=3.00049,
        unknown_fields=Counter({"items.mood": 2, "items.brand.founder": 5}),
    )
    assert statistics.figures() == {
        "requests": 12,
        "retries": 2,
        "charged_requests": 0,
        "rate_limit_wait_seconds": 1.235,
        "seconds": 3.0,
        "rows_per_second": 333.3,
        "unknown_fields": 7,
        "unknown_field_names": {"items.brand.founder": 5, "items.mood": 2},
        "fetched_at": STARTED_AT,
    }


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


def test_costs_are_of_the_run_and_what_was_paid_before_is_apart() -> None:
    statistics = ReadStatistics(rows=3_000, cost_usd=0.28)
    assert statistics.cost_figures(0.014, saved_requests=10) == {
        "cost_usd": 0.28,
        "cost_saved_usd": 0.14,
        "cost_usd_per_1000_products": 0.093333,
    }


def test_the_figures_of_a_search() -> None:
    statistics = ScanStatistics(
        search=ProductSearch(q="jacket", catalogs=["acme"]),
        rows=5,
        pages=3,
        repeats=2,
        resumed_pages=1,
        truncated=True,
        first_request_id="r-1",
        last_request_id="r-3",
        requests=4,
    )
    figures = statistics.figures()
    assert figures["search"] == {
        "q": "jacket",
        "catalogs": ["acme"],
        "page_size": 100,
    }
    assert figures["truncated"] is True
    assert (figures["pages"], figures["resumed_pages"], figures["repeats_removed"]) == (3, 1, 2)
    assert (figures["first_request_id"], figures["last_request_id"]) == ("r-1", "r-3")
    assert figures["requests"] == 4
    assert "effective_query" not in figures


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


def test_a_progress_line_says_how_far_the_reading_is() -> None:
    statistics = ScanStatistics(
        search=ProductSearch(catalogs=["acme"]),
        received_rows=1_000,
        received_pages=10,
        likely_rows=1_500,
        requests_left=5,
        cost_usd=0.14,
        seconds=4.0,
    )
    assert statistics.progress() == (
        "Catalog 'acme': 1,000 of 1,500 products in 10 pages, $0.14 of about $0.21, 250 a second, "
        "about 2 s left"
    )
    statistics.search = ProductSearch()
    statistics.likely_rows = statistics.requests_left = None
    assert statistics.progress() == ("The search: 1,000 products in 10 pages, $0.14, 250 a second")
    statistics.prices = Prices(0, 0)
    assert statistics.progress() == "The search: 1,000 products in 10 pages, 250 a second"


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


def test_the_quantiles_of_two_currencies_are_not_mixed() -> None:
    prices = {"EUR": 10.0, "eur": 20.0, "Eur": 30.0}
    rows = [{"current_price": price, "currency": code} for code, price in prices.items()]
    rows += [{"current_price": 4000.0, "currency": currency} for currency in ("JPY", None, "¥ a")]
    figures = product_figures(rows)
    medians = {name: value for name, value in figures.items() if "p50" in name}
    assert medians == {
        "price_p50_eur": 20.0,
        "price_p50_jpy": 4000.0,
        "price_p50_no_currency": 4000.0,
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
