"""The published client works with the current generation of the sandbox."""

from collections.abc import AsyncIterator

import pytest
from octogen_ai_sdk import Facet, OctogenClient, OctogenNotFoundError, OctogenValidationError

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
        assert item.display_match_score is not None


async def test_it_looks_up_every_product_of_a_page(published: OctogenClient) -> None:
    page = await published.search_products(limit=60)
    for item in page.items:
        found = await published.lookup_product(item.product_url)
        assert found.catalog_key == item.catalog_key
        assert found.product.uuid == item.uuid
        assert found.product.variants
        assert found.product.enrichment is not None


async def test_it_understands_the_errors(published: OctogenClient, current: Sandbox) -> None:
    with pytest.raises(OctogenNotFoundError, match="product_not_found"):
        await published.lookup_product("https://nowhere.example/x", resolution_mode="index_only")
    current.inject(Fault("status", 422, times=1))
    with pytest.raises(OctogenValidationError):
        await published.search_products()
