from __future__ import annotations

from typing import Any

import pytest
from octogen_ai_sdk.generated.models import (
    ProgrammaticCategoryCount,
    ProgrammaticFacetCountsRequest,
    ProgrammaticFacetCountsResponse,
    ProgrammaticProductSearchEffectiveQuery,
)

from octogen_dagster.api.product_count import count_request
from octogen_dagster.api.search_request import SearchFilters
from octogen_dagster.errors import OctogenNotFoundError, OctogenResponseError
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import Transport, open_client
from tests.api.servers import RawServer, http

FACETS = [{"name": "gender", "values": ["female"]}]
EVERYTHING = {
    "facets": FACETS,
    "exclude_facets": FACETS,
    "price_min": 1,
    "price_max": 2,
    "brand_quality_min": 1,
    "brand_quality_max": 6,
    "similar_to_brands": ["acme"],
    "q": "boots",
    "understand": True,
    "omit_generated_facets": ["color"],
    "fallback_category": ["Shoes"],
    "relax": True,
}


def counted(count: int) -> dict[str, Any]:
    """The answer of the service, by the published model."""
    query = ProgrammaticProductSearchEffectiveQuery.model_construct(
        text="", understood=False, facets=[]
    )
    return ProgrammaticFacetCountsResponse.model_construct(
        attributes=[],
        facets=[],
        categories=[ProgrammaticCategoryCount(key="products", count=count)],
        effective_query=query,
    ).model_dump(mode="json", by_alias=True)


@pytest.mark.parametrize("search", [{}, {"q": "boots"}, EVERYTHING])
@pytest.mark.parametrize("catalogs", [[], ["acme", "zen"]])
def test_the_published_model_accepts_each_request(
    search: dict[str, Any], catalogs: list[str]
) -> None:
    body = count_request(SearchFilters(**search), catalogs)
    published = ProgrammaticFacetCountsRequest.model_validate(body)
    assert published.catalogs == (catalogs or None)
    assert published.categories
    assert [category.facets for category in published.categories] == [[]]
    kept = set(search) - {"understand", "relax", "similar_to_brands"}
    kept -= set() if search.get("understand") else {"q"}
    assert set(body) == kept | {"categories"} | ({"catalogs"} if catalogs else set())


async def test_the_count_is_that_of_the_service(transport: Transport) -> None:
    with RawServer(lambda _: http(200, counted(12_345))) as server:
        async with open_client(server, transport) as client:
            assert await client.count_products(SearchFilters(), ["acme"]) == 12_345
    (request,) = server.received
    assert (request.method, request.target) == ("POST", "/v1/products/facet-counts")
    assert request.json == {
        "catalogs": ["acme"],
        "categories": [{"key": "products", "facets": []}],
    }


@pytest.mark.parametrize("categories", [[], [{"key": "products"}], [{"count": -1}], None])
async def test_an_answer_without_the_count_is_an_error(categories: Any) -> None:
    body = counted(1) | {"categories": categories}
    with RawServer(lambda _: http(200, body)) as server:
        async with open_client(server) as client:
            with pytest.raises(OctogenResponseError, match="The count of products was answered"):
                await client.count_products(SearchFilters())


async def test_the_sandbox_of_today_counts_what_a_search_finds(current: Sandbox) -> None:
    filters = SearchFilters(facets=[{"name": "gender", "values": ["female"]}])
    async with open_client(current) as client:
        assert await client.count_products(SearchFilters()) == 150
        assert await client.count_products(SearchFilters(), ["strada"]) == 30
        assert await client.count_products(SearchFilters(), ["nosuch"]) == 0
        found = [each async for each in client.iter_products(facets=filters.facets)]
        assert await client.count_products(filters) == len(found) > 0


async def test_an_older_service_counts_whole_catalogs_only(sandbox: Sandbox) -> None:
    async with open_client(sandbox) as client:
        with pytest.raises(OctogenNotFoundError) as caught:
            await client.count_products(SearchFilters())
    assert str(caught.value) == (
        f"The count of products cannot be had: {sandbox.base_url} has no such operation (404). A "
        "service of the older contract counts whole catalogs only: leave out the filters."
    )
