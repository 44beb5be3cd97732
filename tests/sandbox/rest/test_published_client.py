"""The published client works with the current generation of the sandbox."""

from collections.abc import AsyncIterator

import pytest
from octogen_ai_sdk import (
    Facet,
    OctogenClient,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenValidationError,
)

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox


@pytest.fixture
async def published(current: Sandbox) -> AsyncIterator[OctogenClient]:
    async with OctogenClient(api_key=current.api_key, base_url=current.base_url) as client:
        yield client


async def test_it_pages_through_a_search_to_the_end(published: OctogenClient) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        page = await published.search_products(limit=40, cursor=cursor)
        seen += [item.uuid for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 150
    assert page.effective_query is not None
    assert page.request_id


async def test_it_searches_with_every_filter(published: OctogenClient) -> None:
    page = await published.search_products(
        q="boots",
        catalogs=["strada"],
        facets=[Facet(name="color_family", values=["Black", "blue", "brown", "white"])],
        price_min=1,
        price_max=1000,
    )
    assert page.items
    for item in page.items:
        assert item.catalog_key == "strada"
        assert item.current_price is not None
    assert any(item.display_match_score is not None for item in page.items)


async def test_it_looks_up_every_product_of_a_page(published: OctogenClient) -> None:
    page = await published.search_products(limit=60)
    for item in page.items:
        found = await published.lookup_product(item.product_url)
        assert found.catalog_key == item.catalog_key
        assert found.product.uuid == item.uuid
        assert found.source == "indexed"


async def test_it_understands_the_errors(published: OctogenClient, current: Sandbox) -> None:
    with pytest.raises(OctogenNotFoundError, match="product_not_found"):
        await published.lookup_product("https://nowhere.example/x", resolution_mode="index_only")
    current.inject(Fault("status", 422, times=1))
    with pytest.raises(OctogenValidationError):
        await published.search_products()


async def test_it_covers_hosts_counts_facets_and_knows_itself(published: OctogenClient) -> None:
    covered = await published.get_domain("https://www.Northpeak.example/products")
    (catalog,) = covered.catalogs
    assert (catalog.catalog, catalog.product_count) == ("northpeak", 120)
    counts = await published.count_product_facets(
        q="women", catalogs=["northpeak"], facet_names=["color_family"], attributes=["material"]
    )
    assert counts.facets[0].values
    assert counts.effective_query.facets
    me = await published.get_me()
    assert me.organization is not None
    assert me.organization.type == "catalog_partner"


async def test_it_reads_products_that_come_from_the_shop(
    published: OctogenClient, current: Sandbox
) -> None:
    page = await published.search_products(catalogs=["strada"])
    current.remove_product(page.items[0].product_url)
    found = await published.lookup_product(page.items[0].product_url, match_mode="strict")
    assert found.source == "on_demand"
    assert found.product.uuid is None


async def test_it_is_told_that_the_credit_is_spent() -> None:
    with Sandbox(catalogs=1, generation="current", credit_usd=0) as broke:
        async with OctogenClient(api_key=broke.api_key, base_url=broke.base_url) as client:
            with pytest.raises(OctogenInsufficientCreditError) as caught:
                await client.search_products()
    assert caught.value.detail["top_up_url"].startswith("https://")
