"""The number of rows that a plan expects."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.frames.catalog_read import CatalogRead
from octogen_dagster.frames.plan import PlannedCatalog
from octogen_dagster.frames.read_plan import ReadPlan

NOW = datetime(2026, 11, 25, tzinfo=timezone.utc)


def plan(search: ProductSearch, *counts: int | None) -> ReadPlan:
    reads = [
        CatalogRead(PlannedCatalog(key, search.request(key), product_count=count))
        for key, count in zip(("acme", "strada", "zen"), counts, strict=False)
    ]
    return ReadPlan(search, reads, NOW)


def test_whole_catalogs_have_the_products_that_the_source_counted() -> None:
    assert plan(ProductSearch(page_size=7), 20, 0, 3).expected_rows == 23
    assert plan(ProductSearch(catalogs=["acme"]), 20).expected_rows == 20


@pytest.mark.parametrize(
    "search", [ProductSearch(q="boots"), ProductSearch(price_min=1), ProductSearch(max_products=5)]
)
def test_a_search_finds_an_unknown_number(search: ProductSearch) -> None:
    assert plan(search, 20).expected_rows is None


def test_one_unknown_count_makes_the_sum_unknown() -> None:
    assert plan(ProductSearch(), 20, None).expected_rows is None
