"""A large catalog is read in several walks at once: whole, for at most 5 % more pages.

The service's count is a lower bound, since it misses products without a category. So it proves only
that some are missing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import octogen_dagster as od
from octogen_dagster.errors import OctogenBudgetError, OctogenSplitCatalogError
from tests.projects import Project
from tests.published import published
from tests.published_service import PublishedService
from tests.results import failure, materialized, octogen_at

HOST = "shop.example"
SEARCH = od.ProductSearch(catalogs=["acme"], page_size=5)
BRANDS = [*(f"Brand {number}" for number in range(12)), None]


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A catalog of 100 pages: twelve brands, and one product in 13 without, which come last."""
    products = [f"{number:08}" for number in range(500)]
    pairs = zip(products, itertools.cycle(BRANDS), strict=False)
    brands = {product: brand for product, brand in pairs if brand}
    products.sort(key=lambda product: product not in brands)  # page 1 is compared
    with PublishedService(
        {"acme": products},
        brands=brands,
        hosts={HOST: ["acme"]},
        counts={"acme": 490},  # some have no category
    ).running() as running:
        yield running


def scan(
    service: PublishedService, search: od.ProductSearch = SEARCH, **settings: Any
) -> pl.LazyFrame:
    return od.scan_products(
        search,
        api_key=service.api_key,
        base_url=service.base_url,
        catalog_source=od.ShopCatalogs(hosts=[HOST]),
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
    assert sorted(frame["uuid"]) == sorted(service.catalogs["acme"])
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
        (SEARCH, {"max_extra_pages_percent": 0}),
        (SEARCH, {"concurrency": 1}),
        (SEARCH.model_copy(update={"page_size": 11}), {}),
        (SEARCH.model_copy(update={"max_products": 450}), {}),
        (SEARCH.model_copy(update={"q": "boots", "understand": False}), {}),
    ],
    ids=["turned off", "one at a time", "below 50 pages", "capped", "keywords"],
)
def test_what_is_no_large_whole_catalog_is_read_in_one(
    service: PublishedService, search: od.ProductSearch, settings: dict[str, Any]
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
        match=r"^Catalog 'acme', split by brand .* \d+ of \d+ .* max_extra_pages_percent=0",
    ):
        scan(service).collect()
    service.searches.clear()
    assert len(scan(service, max_extra_pages_percent=0).collect()) == 500


Read = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def read(service: PublishedService, tmp_path: Path) -> Read:
    """Reads the catalog into a snapshot, in several walks or not."""

    def read(source: od.CatalogSource, *, walks: bool = True) -> dg.ExecuteInProcessResult:
        service.searches.clear()
        asset = od.build_products_asset("products", SEARCH)
        octogen = octogen_at(service, catalog_source=source)
        result = materialized([asset], tmp_path, octogen, raise_on_error=False)
        assert ("remainder" in walks_of(service)) == walks
        return result

    return read


@pytest.mark.slow
def test_walks_that_leave_out_products_that_are_counted_end_the_read(
    read: Read, service: PublishedService, tmp_path: Path
) -> None:
    source = od.ShopCatalogs(hosts=[HOST])
    assert read(source).success
    service.faults.add("excluded")
    message = failure(read(source))
    assert "only 462 products" in message
    assert "at least 490" in message
    assert len(pl.read_parquet(tmp_path / "products.parquet")) == 500


@pytest.mark.slow
def test_a_read_that_fails_at_90_percent_costs_its_retry_two_pages_more_for_each_walk(
    project: Project, service: PublishedService
) -> None:
    def read() -> int:
        service.searches.clear()
        source = od.ShopCatalogs(hosts=[HOST])
        octogen = octogen_at(service, catalog_source=source, attempts=1)
        asset = od.build_products_asset("products", SEARCH, retry_policy=None)
        project.run([asset], octogen, raise_on_error=False)
        return len(service.searches)

    pages, walks = read(), len(walks_of(service))
    service.max_searches = pages * 9 // 10
    assert read() == service.max_searches
    service.max_searches = None
    # For each walk, the page to compare, and the page in flight when another walk failed.
    assert read() <= pages - pages * 9 // 10 + 2 * walks
    assert walks <= 0.05 * pages
    assert project.read("products")["uuid"].n_unique() == 500


@pytest.mark.long
def test_without_a_count_of_the_source_the_latest_snapshot_says_how_many_there_are(
    read: Read, service: PublishedService, tmp_path: Path
) -> None:
    source = od.NamedCatalogs(keys=["acme"])
    service.counts["acme"] = 500
    assert read(source, walks=False).success  # no brands are known
    assert read(source).success
    service.faults.add("excluded")
    message = failure(read(source))
    assert "462 products" in message
    assert "at least 500" in message
    service.counts["acme"] = 1_500  # of variants, so it says nothing about rows
    assert read(source).success
    service.faults.clear()
    service.counts["acme"] = 400
    service.catalogs["acme"] = service.catalogs["acme"][:400]
    assert read(source).success
    assert len(pl.read_parquet(tmp_path / "products.parquet")) == 400


NAMES = [None, None, "Acme", "ACME", "acme ", "ß", "SS", "İstanbul", "靴下", "a, b", " ", "\x00"]


@pytest.mark.long
@given(data=st.data())
@settings(published, max_examples=6)
def test_any_catalog_comes_as_in_one_walk(data: st.DataObject) -> None:
    brands = data.draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=30))
    products = [f"{number:08}" for number in range(data.draw(st.integers(100, 130)))]
    ratio = data.draw(st.sampled_from([0.05, 0.2, 1.0]))
    synonyms = {"ss": "ß", "acme": data.draw(st.sampled_from(["acme", "a, b"]))}
    pairs = zip(products, itertools.cycle(brands), strict=False)
    search = od.ProductSearch(catalogs=["acme"], page_size=2)
    with PublishedService(
        {"acme": products},
        brands={product: brand for product, brand in pairs if brand is not None},
        synonyms=synonyms,
        hosts={HOST: ["acme"]},
        counts={"acme": len(products)},
    ).running() as service:
        whole, parts = (
            scan(service, search, max_extra_pages_percent=each).drop("fetched_at").sort("uuid")
            for each in (0, 100 * ratio)
        )
        expected = whole.collect()
        pages = len(service.searches)
        assert parts.collect().equals(expected)
        assert len(service.searches) - pages <= pages * (1 + ratio)
