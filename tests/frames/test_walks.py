"""Catalogs of the sandbox that are read in several walks."""

from __future__ import annotations

import pytest

from octogen_dagster.api.catalog_sources import CatalogService, ShopCatalogs
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.api.spending import Spending
from octogen_dagster.errors import OctogenBudgetError
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.sandbox.server import Sandbox

SEARCH = ProductSearch(catalogs=["northpeak"], page_size=3)


def scan(sandbox: Sandbox, ratio: float = 0.05, budget_usd: float | None = None) -> ProductScan:
    connection = CatalogService(
        api_key=ApiKey(sandbox.api_key),
        base_url=sandbox.base_url,
        catalogs=ShopCatalogs(hosts=["northpeak.example"]),
        max_extra_pages_ratio=ratio,
        spending=Spending(budget_usd=budget_usd),
    )
    return ProductScan(SEARCH, connection)


def test_several_walks_bring_the_rows_of_one() -> None:
    with Sandbox(catalogs={"northpeak": 300}, generation="current") as sandbox:
        one = scan(sandbox, ratio=0.0).frame.collect().drop("fetched_at")
        scanned = scan(sandbox)
        several = scanned.frame.collect().drop("fetched_at")
    assert scanned.statistics.walks > 2
    assert several.sort("uuid").equals(one.sort("uuid"))


def test_all_walks_together_keep_to_the_budget() -> None:
    with Sandbox(catalogs={"northpeak": 300}, generation="current") as sandbox:
        scanned = scan(sandbox, budget_usd=0.014 * 40)
        with pytest.raises(OctogenBudgetError):
            scanned.frame.collect()
        paid = [
            request
            for request in sandbox.requests
            if request.path == "/products/search" and request.status == 200
        ]
        assert scanned.statistics.walks > 2
        assert len(paid) == 40


def test_the_older_generation_is_read_in_one_walk_without_a_page_more() -> None:
    with Sandbox(catalogs={"northpeak": 300}, generation="seed") as sandbox:
        scanned = ProductScan(
            SEARCH, CatalogService(api_key=ApiKey(sandbox.api_key), base_url=sandbox.base_url)
        )
        assert len(scanned.frame.collect()) == 300
        assert scanned.statistics.walks == 1
        paid = [request for request in sandbox.requests if request.path == "/products/search"]
        assert len(paid) == 100
