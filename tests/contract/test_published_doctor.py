"""The published client gets the answers from the sandbox that `doctor --ask` gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from octogen_ai_sdk import Facet, OctogenClient, OctogenNotFoundError

from octogen_dagster.sandbox.server import Sandbox

HOST = "kumo.example"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"kumo": 230}) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[OctogenClient]:
    published = OctogenClient(api_key=sandbox.api_key, base_url=sandbox.base_url)
    yield published
    await published.aclose()


async def test_the_account_and_the_rate_limit(client: OctogenClient) -> None:
    me = await client.get_me()
    assert me.organization
    assert me.organization.type == "catalog_partner"
    assert me.rate_limit
    assert me.rate_limit.limit


async def test_an_unknown_catalog_finds_nothing(client: OctogenClient) -> None:
    page = await client.search_products(catalogs=["octogen-doctor-0"], limit=1)
    assert not page.items


async def test_a_first_page_is_repeated_and_a_cursor_leads_on(client: OctogenClient) -> None:
    first, again = [await client.search_products(catalogs=["kumo"], limit=100) for _ in range(2)]
    assert first.items
    assert again.items
    assert [item.uuid for item in first.items] == [item.uuid for item in again.items]
    second = await client.search_products(catalogs=["kumo"], limit=100, cursor=first.next_cursor)
    assert second.items
    assert not {item.uuid for item in first.items} & {item.uuid for item in second.items}


async def test_a_brand_and_its_exclusion_split_a_catalog(client: OctogenClient) -> None:
    first = await client.search_products(catalogs=["kumo"], limit=100)
    brand = next(item.brand.name for item in first.items or () if item.brand)
    facets = [Facet(name="brand_name", values=[brand])]
    chosen = await client.search_products(catalogs=["kumo"], limit=100, facets=facets)
    others = await client.search_products(catalogs=["kumo"], limit=100, exclude_facets=facets)
    assert chosen.items
    assert others.items
    assert not {item.uuid for item in chosen.items} & {item.uuid for item in others.items}


async def test_keywords_are_matched_as_they_are_written(client: OctogenClient) -> None:
    page = await client.search_products(q="dress", understand=False, limit=1)
    assert page.effective_query
    assert not page.effective_query.understood
    assert not page.effective_query.facets


async def test_an_unknown_product_is_a_404(client: OctogenClient) -> None:
    with pytest.raises(OctogenNotFoundError) as refused:
        await client.lookup_product(
            f"https://{HOST}/octogen-doctor-0", resolution_mode="index_only", match_mode="strict"
        )
    assert refused.value.detail == "product_not_found"


async def test_the_count_is_of_rows_and_its_time_stays(client: OctogenClient) -> None:
    before, after = [await client.get_domain(HOST) for _ in range(2)]
    assert before.catalogs == after.catalogs
    rows, cursor = 0, None
    while True:
        page = await client.search_products(catalogs=["kumo"], limit=100, cursor=cursor)
        rows += len(page.items or ())
        cursor = page.next_cursor
        if cursor is None:
            break
    assert rows == before.catalogs[0].product_count
