"""A query requests the pages that it needs, in the order of its catalogs, and not one more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from octogen_dagster import NamedCatalogs, ProductSearch, scan_products
from tests.promises.paged_service import PagedService


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": 250, "zen": 7}).running() as service:
        yield service


def scan(service: PagedService, search: ProductSearch, **settings: Any) -> pl.LazyFrame:
    return scan_products(search, api_key=service.api_key, base_url=service.base_url, **settings)


@pytest.mark.parametrize(
    ("rows", "pages"), [(0, 0), (1, 1), (100, 1), (101, 2), (200, 2), (250, 3), (300, 3)]
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_head_requests_no_page_that_it_does_not_need(
    service: PagedService, rows: int, pages: int, engine: Any
) -> None:
    frame = scan(service, ProductSearch(catalogs=["acme"])).head(rows).collect(engine=engine)
    assert frame["uuid"].to_list() == [f"acme-{number}" for number in range(min(rows, 250))]
    assert service.pages_of("acme") == list(range(1, pages + 1))


def test_a_query_that_ends_at_its_first_row_pays_for_few_small_pages() -> None:
    search = ProductSearch(catalogs=["acme"], page_size=10)
    with PagedService({"acme": 2_000}).running() as service:
        frame = scan(service, search, max_extra_pages_ratio=0)
        assert frame.filter(pl.col("product_url").str.len_bytes() > 0).head(1).collect().height == 1
        assert len(service.pages_of("acme")) <= 35


@pytest.mark.parametrize(("cap", "acme"), [(5, 0), (7, 0), (8, 1), (107, 1), (108, 2)])
def test_a_cap_fills_up_from_the_named_catalogs_in_their_order(
    service: PagedService, cap: int, acme: int
) -> None:
    search = ProductSearch(catalogs=["zen", "acme"], max_products=cap)
    frame = scan(service, search).collect()
    assert frame["catalog_key"].to_list() == ["zen"] * min(cap, 7) + ["acme"] * max(0, cap - 7)
    assert len(service.pages_of("acme")) == acme


def test_a_query_of_one_catalog_reads_no_other(service: PagedService) -> None:
    key = pl.col("catalog_key")
    assert scan(service, ProductSearch()).filter(key == "zen").collect().height == 7
    assert service.searches == [("zen", 1)]
    assert scan(service, ProductSearch()).filter(key == "nowhere").collect().is_empty()
    assert len(service.searches) == 1


def test_a_query_without_columns_counts_rows(service: PagedService) -> None:
    frame = scan(service, ProductSearch(catalogs=["zen"]))
    for query in (
        frame.select(pl.len()),
        frame.with_row_index().filter(pl.col("index") < 9).select(pl.len()),
        frame.select(pl.int_range(pl.len())).select(pl.len()),
        frame.head(7).select(pl.len()),
    ):
        assert query.collect().item() == 7


def test_without_catalogs_there_is_nothing(service: PagedService) -> None:
    service.catalogs = {}
    frame = scan(service, ProductSearch()).collect()
    assert frame.is_empty()
    assert "current_price" in frame.columns


def test_catalogs_are_read_at_the_same_time(service: PagedService) -> None:
    service.catalogs = {f"shop-{number}": 300 for number in range(8)}
    frame = scan(service, ProductSearch(page_size=10), concurrency=8).collect()
    assert frame["uuid"].n_unique() == len(frame) == 2_400
    turns = sum(one[0] != other[0] for one, other in itertools.pairwise(service.searches))
    assert turns > 8


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_catalogs_at_a_time_than_allowed(service: PagedService, concurrency: int) -> None:
    service.catalogs = {f"shop-{number}": 100 for number in range(6)}
    keys = NamedCatalogs(keys=list(service.catalogs))
    search = ProductSearch(page_size=10)
    assert len(scan(service, search, catalogs=keys, concurrency=concurrency).collect()) == 600
    left = dict.fromkeys(service.catalogs, 10)
    begun: set[str] = set()
    for key, _ in service.searches:
        begun.add(key)
        assert len([each for each in begun if left[each]]) <= concurrency
        left[key] -= 1


def test_each_catalog_comes_in_the_order_of_the_service(service: PagedService) -> None:
    frame = scan(service, ProductSearch(page_size=10)).collect()
    for key, count in service.catalogs.items():
        of_catalog = frame.filter(pl.col("catalog_key") == key)["uuid"].to_list()
        assert of_catalog == [f"{key}-{number}" for number in range(count)]
