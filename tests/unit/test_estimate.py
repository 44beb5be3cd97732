"""What a read takes, from counts and prices."""

from __future__ import annotations

from decimal import Decimal

import pytest

from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.estimate import (
    estimate_lookups,
    estimate_pages,
    small_page_warning,
)
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.service import Service
from octogen_dagster.api.spending import Prices, Spending
from tests.api.servers import KEY


def service(prices: Prices | None = None, limit: float | None = None) -> Service:
    spending = Spending(prices)
    with spending.request("/catalogs", "The list") as charge:
        charge.requests_per_minute = limit
    return Service(api_key=ApiKey(KEY), spending=spending, limiter=RateLimiter(0.2))


def test_a_catalog_of_a_million_products_costs_140_dollars() -> None:
    estimate = estimate_pages([1_000_000], 100, service())
    assert (estimate.products, estimate.requests) == (1_000_000, 10_000)
    assert estimate.cost_usd == 140
    assert str(estimate) == "1,000,000 products in 10,000 pages, $140.00"
    assert str(estimate_lookups(1_000_000, service())) == (
        "1,000,000 products in 1,000,000 lookups, $2,000.00"
    )


@pytest.mark.parametrize(
    ("counts", "page_size", "pages"),
    [
        ([100], 100, 1),
        ([101], 100, 2),
        ([150, 150], 100, 4),
        ([0], 100, 1),
        ([7], 3, 3),
        ([], 9, 0),
    ],
)
def test_each_catalog_begins_a_page_of_its_own(
    counts: list[int], page_size: int, pages: int
) -> None:
    assert estimate_pages(counts, page_size, service()).requests == pages


def test_saved_pages_are_not_requested() -> None:
    estimate = estimate_pages([1_000], 100, service(), saved_pages=6)
    assert (estimate.requests, estimate.cost_usd) == (4, Decimal("0.056"))
    assert estimate_pages([1], 100, service(), saved_pages=6).requests == 0


def test_the_prices_are_those_of_the_service() -> None:
    prices = Prices(search_page_usd=0.5, lookup_usd=0)
    assert str(estimate_pages([300], 100, service(prices))) == "300 products in 3 pages, $1.50"
    assert str(estimate_lookups(300, service(prices))) == "300 products in 300 lookups"


@pytest.mark.parametrize(
    ("requests", "text"),
    [
        (80, "all within the rate limit of 100 requests a minute"),
        (81, "at least 1 s at the rate limit of 100 requests a minute"),
        (130, "at least 30 s at the rate limit of 100 requests a minute"),
        (380, "at least 3 min at the rate limit of 100 requests a minute"),
        (13_080, "at least 2 h 10 min at the rate limit of 100 requests a minute"),
    ],
)
def test_the_rate_limit_says_how_long_it_takes(requests: int, text: str) -> None:
    estimate = estimate_lookups(requests, service(Prices(lookup_usd=0), limit=100))
    assert str(estimate) == f"{requests:,} products in {requests:,} lookups, {text}"


def test_small_pages_cost_more() -> None:
    assert small_page_warning(30, service()) == (
        "page_size is 30: a page costs the same whatever its size, so this read costs 3.33 times "
        "as much as with page_size 100."
    )
    assert small_page_warning(100, service()) is None
    assert small_page_warning(30, service(Prices(search_page_usd=0))) is None
