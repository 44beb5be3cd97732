"""The numbers that all reads have in common."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timezone

import pytest

from octogen_dagster.api.requester import RequestStatistics
from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.frames.statistics import ReadStatistics

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


def test_without_unknown_fields_no_names_are_shown() -> None:
    figures = ReadStatistics().figures()
    assert figures["unknown_fields"] == 0
    assert "unknown_field_names" not in figures
    assert figures["rows_per_second"] == 0


def test_an_update_takes_over_what_was_sent() -> None:
    statistics = ReadStatistics()
    spending = Spending(Prices(search_page_usd=0.5))
    for sent in (RequestStatistics(5, 1, 0.5), RequestStatistics(9, 2, 1.5)):
        with spending.request("/products/search", "The search") as charge:
            charge.is_charged = True
        statistics.update(sent, spending)
    assert (statistics.requests, statistics.retries) == (2, 2)  # the spending counts all
    assert statistics.rate_limit_wait_seconds == 1.5
    assert (statistics.charged_requests, statistics.cost_usd) == (2, 1.0)
    assert statistics.prices == Prices(search_page_usd=0.5)
    assert statistics.seconds > 0


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


def test_before_the_first_row_nothing_is_said_of_the_rest() -> None:
    assert ReadStatistics().speed(100) == "0 a second"


def test_costs_are_of_the_run_and_what_was_paid_before_is_apart() -> None:
    statistics = ReadStatistics(rows=3_000, cost_usd=0.28)
    assert statistics.cost_figures(0.014, saved_requests=10) == {
        "cost_usd": 0.28,
        "cost_saved_usd": 0.14,
        "cost_usd_per_1000_products": 0.093333,
    }


def test_without_rows_there_is_no_cost_of_1000_products() -> None:
    assert ReadStatistics().cost_figures(0.014, 0) == {"cost_usd": 0.0, "cost_saved_usd": 0.0}


def test_a_price_of_0_shows_no_costs() -> None:
    assert ReadStatistics(rows=10).cost_figures(0.0, 3) == {}
