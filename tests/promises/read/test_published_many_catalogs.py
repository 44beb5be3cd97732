"""A filtered search over many catalogs costs the pages of its hits, and not one for each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.sandbox.server import Sandbox
from tests.published_service import PublishedService

KEYS = [f"shop-{number}" for number in range(200)]
RED = [{"name": "brand_name", "values": ["Red"]}]


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """200 catalogs of 30 products, of which ten in all are of the brand Red."""
    catalogs = {key: [f"{key}-{number}" for number in range(30)] for key in KEYS}
    red = [catalogs[key][7] for key in KEYS[::20]]
    with PublishedService(
        catalogs,
        brands=dict.fromkeys(red, "Red"),
        hosts={"shops.example": KEYS},
        counts=dict.fromkeys(KEYS, 30),
    ).running() as running:
        yield running


def scan(
    service: PublishedService, source: od.CatalogSource | None = None, **search: Any
) -> pl.LazyFrame:
    return od.scan_products(
        od.ProductSearch.model_validate(search),
        api_key="octo_live_test",
        base_url=service.base_url,
        catalog_source=source,
    )


class Watched(od.CatalogSource):
    """A source of one's own, which says when each catalog was indexed."""

    async def fetch(self, client: od.OctogenClient) -> CatalogList:
        at = datetime(2026, 11, 26, tzinfo=UTC)
        return CatalogList([CatalogState(key, last_indexed_at=at) for key in KEYS])


@pytest.mark.parametrize(
    ("source", "catalogs"),
    [
        (None, KEYS),
        (od.NamedCatalogs(keys=KEYS), []),
        (od.ShopCatalogs(hosts=["shops.example"]), []),
        (Watched(), []),
    ],
    ids=["of the search", "named", "shops", "watched"],
)
def test_ten_hits_in_200_catalogs_cost_a_page(
    service: PublishedService, source: od.CatalogSource | None, catalogs: list[str]
) -> None:
    frame = scan(service, source, catalogs=catalogs, facets=RED).collect()
    assert sorted(frame["catalog_key"]) == sorted(KEYS[::20])
    (body,) = service.searches
    assert body["catalogs"] == KEYS


def test_more_than_500_catalogs_are_named_in_several_requests(service: PublishedService) -> None:
    keys = [*KEYS, *(f"more-{number}" for number in range(400))]
    service.catalogs |= {key: [f"{key}-1"] for key in keys[200:]}
    service.counts |= dict.fromkeys(keys[200:], 1)
    service.brands["more-399-1"] = "Red"
    assert len(scan(service, catalogs=keys, facets=RED).collect()) == 11
    assert sorted(len(body["catalogs"]) for body in service.searches) == [100, 500]


def test_head_of_a_filtered_search_is_one_page(service: PublishedService) -> None:
    assert len(scan(service, catalogs=KEYS, facets=RED).head(5).collect()) == 5
    assert len(service.searches) == 1


def test_a_service_that_cannot_count_is_read_catalog_by_catalog(service: PublishedService) -> None:
    service.counts = {}
    assert len(scan(service, catalogs=KEYS[:30], facets=RED).collect()) == 2
    assert len(service.searches) == 30


@pytest.mark.parametrize("generation", ["seed", "current"])
def test_both_generations_find_the_same(generation: Any) -> None:
    shops = {"northpeak": 60, "strada": 40, "voltaic": 7}
    with Sandbox(catalogs=shops, generation=generation) as sandbox:
        frame = od.scan_products(
            od.ProductSearch(catalogs=list(shops), price_min=20),
            api_key=sandbox.api_key,
            base_url=sandbox.base_url,
        ).collect()
        every = od.scan_products(
            od.ProductSearch(catalogs=list(shops)),
            api_key=sandbox.api_key,
            base_url=sandbox.base_url,
        ).collect()
    dear = every.filter(pl.col("current_price") >= 20)
    assert sorted(frame["uuid"]) == sorted(dear["uuid"])
