"""A large catalog is read in several walks at once: whole, for at most 5 % more pages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from octogen_dagster import ProductSearch, ShopCatalogs, scan_products
from octogen_dagster.errors import OctogenBudgetError, OctogenSplitCatalogError
from tests.published_service import PublishedService

HOST = "shop.example"
SEARCH = ProductSearch(catalogs=["acme"], page_size=5)
BRANDS = [*(f"Brand {number}" for number in range(12)), None]


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A catalog of 100 pages: twelve brands, and one product in 13 without."""
    products = [f"{number:08}" for number in range(500)]
    pairs = zip(products, itertools.cycle(BRANDS), strict=False)
    with PublishedService(
        {"acme": products},
        brands={product: brand for product, brand in pairs if brand},
        hosts={HOST: ["acme"]},
        counts={"acme": 490},  # some have no category
    ).running() as running:
        yield running


def scan(
    service: PublishedService, search: ProductSearch = SEARCH, **settings: Any
) -> pl.LazyFrame:
    return scan_products(
        search,
        api_key="octo_live_test",
        base_url=service.base_url,
        catalogs=ShopCatalogs(hosts=[HOST]),
        **settings,
    )


def walks_of(service: PublishedService) -> Counter[str]:
    """How many pages of each walk were requested; "whole" is the catalog without facets."""
    return Counter(
        ", ".join(body["facets"][0]["values"])
        if body.get("facets")
        else "remainder"
        if body.get("exclude_facets")
        else "whole"
        for body in service.searches
    )


def test_each_product_comes_once_and_few_pages_more(service: PublishedService) -> None:
    frame = scan(service).collect()
    assert sorted(frame["uuid"]) == service.catalogs["acme"]
    assert len(walks_of(service).keys() - {"whole"}) >= 4
    assert len(service.searches) <= 105


def test_walks_are_read_at_the_same_time(service: PublishedService) -> None:
    scan(service).collect()
    walks = [str(body.get("facets")) for body in service.searches]
    turns = sum(one != other for one, other in itertools.pairwise(walks))
    assert turns > len(set(walks))


@pytest.mark.parametrize(
    ("search", "settings"),
    [
        (SEARCH, {"max_extra_pages_ratio": 0.0}),
        (SEARCH, {"concurrency": 1}),
        (SEARCH.model_copy(update={"page_size": 11}), {}),
        (SEARCH.model_copy(update={"max_products": 450}), {}),
        (SEARCH.model_copy(update={"q": "boots", "understand": False}), {}),
    ],
    ids=["turned off", "one at a time", "below 50 pages", "capped", "keywords"],
)
def test_what_is_no_large_whole_catalog_is_read_in_one(
    service: PublishedService, search: ProductSearch, settings: dict[str, Any]
) -> None:
    scan(service, search, **settings).collect()
    assert set(walks_of(service)) == {"whole"}


def test_a_service_that_refuses_so_many_brands_is_read_in_one(service: PublishedService) -> None:
    service.max_values = 3
    assert len(scan(service).collect()) == 500
    assert walks_of(service) == {"whole": 100}


def test_all_walks_together_keep_to_the_budget(service: PublishedService) -> None:
    with pytest.raises(OctogenBudgetError):
        scan(service, budget_usd=0.014 * 40).collect()
    assert len(service.searches) == 40
    assert len(walks_of(service)) >= 4


@pytest.mark.parametrize("fault", ["facets", "exclude_facets"])
def test_walks_that_overlap_end_the_read(service: PublishedService, fault: str) -> None:
    service.faults.add(fault)
    with pytest.raises(
        OctogenSplitCatalogError,
        match=r"^Catalog 'acme': \d+ of \d+ products came in more than one of the \d walks that "
        r"read it at once\. .* set max_extra_pages_ratio=0 \(of OctogenResource or",
    ):
        scan(service).collect()
    service.searches.clear()
    assert len(scan(service, max_extra_pages_ratio=0.0).collect()) == 500
