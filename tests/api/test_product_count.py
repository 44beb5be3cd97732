from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.api.search_request import SearchFilters
from octogen_dagster.errors import OctogenNotFoundError, OctogenResponseError
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import Transport, open_client
from tests.api.counts import counted
from tests.api.servers import RawServer, http


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
