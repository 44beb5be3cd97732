"""The numbers of the reading of a search, and of the products that it brought."""

from __future__ import annotations

import math

import polars as pl
import pytest

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.api.spending import Prices
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.decode import ProductPage
from octogen_dagster.frames.scan_statistics import ScanStatistics, product_figures


def wire_page(request_id: str | None) -> ProductPage:
    return ProductPage([], None, request_id, b"[]", {"items.mood": 1}, None, True)


def test_rows_and_pages_are_added_up() -> None:
    statistics = ScanStatistics()
    frame = pl.DataFrame({"uuid": ["a", "b"]})
    statistics.add(frame, [wire_page("r-1"), wire_page("r-2")])
    statistics.add(frame.head(1), [wire_page("r-3")])
    assert (statistics.rows, statistics.pages) == (3, 3)
    assert statistics.unknown_fields == {"items.mood": 3}
    assert (statistics.first_request_id, statistics.last_request_id) == ("r-1", "r-3")


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


def test_the_effective_query_is_a_figure_where_the_service_tells_it() -> None:
    query: dict[str, object] = {"text": "jacket", "understood": False}
    statistics = ScanStatistics(effective_queries={"acme": query, "zen": query})
    assert statistics.figures()["effective_query"] == query


def test_the_costs_are_those_of_search_pages() -> None:
    prices = Prices(search_page_usd=0.5, lookup_usd=0)
    statistics = ScanStatistics(
        rows=500, pages=5, resumed_pages=3, charged_requests=2, cost_usd=1.0, prices=prices
    )
    figures = statistics.figures()
    assert figures["charged_requests"] == 2
    assert (figures["cost_usd"], figures["cost_saved_usd"]) == (1.0, 1.5)
    assert figures["cost_usd_per_1000_products"] == 2.0
    statistics.prices = Prices(search_page_usd=0)
    assert not [name for name in statistics.figures() if "usd" in name]
    assert statistics.figures()["charged_requests"] == 2


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


def test_without_request_ids_none_are_shown() -> None:
    assert not {"first_request_id", "last_request_id"} & ScanStatistics().figures().keys()


@pytest.mark.parametrize(
    ("statistics", "source"),
    [
        (ScanStatistics(), "service"),
        (ScanStatistics(resumed_pages=2), "service, continued from saved pages"),
    ],
)
def test_the_source_of_the_rows(statistics: ScanStatistics, source: str) -> None:
    assert statistics.figures()["source"] == source


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
    figures = product_figures(pl.LazyFrame(rows, schema=PRODUCT_SCHEMA))
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
    figures = product_figures(pl.LazyFrame(rows, schema=PRODUCT_SCHEMA))
    medians = {name: value for name, value in figures.items() if "p50" in name}
    assert medians == {
        "price_p50_eur": 20.0,
        "price_p50_jpy": 4000.0,
        "price_p50_no_currency": 4000.0,
    }


def test_the_quantiles_are_those_of_the_most_common_currencies() -> None:
    codes = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"]
    rows = [{"current_price": 1.0, "currency": code} for code in [*codes[1:], *codes]]
    figures = product_figures(pl.LazyFrame(rows, schema=PRODUCT_SCHEMA))
    assert [name for name in figures if "p50" in name] == [
        f"price_p50_{code.lower()}" for code in codes[1:]
    ]


def test_an_empty_snapshot_has_no_shares() -> None:
    assert product_figures(PRODUCT_SCHEMA.to_frame().lazy()) == {}


def test_a_figure_that_is_no_number_is_left_out() -> None:
    rows = [{"current_price": math.inf, "brand": {"name": "Acme"}}]
    figures = product_figures(pl.LazyFrame(rows, schema=PRODUCT_SCHEMA))
    assert figures == {"null_share_current_price": 0.0, "null_share_brand": 0.0}
