"""The count of products: a lower bound, from answers that are made from the published models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from octogen_dagster import OctogenClient, ProductSearch
from octogen_dagster.errors import OctogenResponseError
from tests.api.servers import KEY, counted
from tests.published_service import refusal, refusal_of


class Service:
    """Counts products as the published models have it.

    Attributes:
        content: The answer to each count.
        bodies: The bodies that it was sent.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.bodies: list[bytes] = []

    def client(self) -> OctogenClient:
        return OctogenClient(
            api_key=KEY, http_client=httpx.AsyncClient(transport=httpx.MockTransport(self._respond))
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.content)
        if error := refusal_of(request.url.path, request.content):
            return httpx.Response(422, json=refusal(error))
        return httpx.Response(200, json=self.content)


def category(*values: str) -> dict[str, Any]:
    return {"name": "category_path.depth_0", "values": list(values)}


async def test_the_counts_of_all_categories_are_added_up() -> None:
    service = Service(counted(12_345, home=5, electronics=0))
    async with service.client() as client:
        assert await client.count_products(ProductSearch(), ["acme"]) == 12_350
    assert httpx.Response(200, content=service.bodies[0]).json() == {
        "catalogs": ["acme"],
        "facet_names": ["category_path.depth_0"],
        "value_limit": 1000,
    }


async def test_a_search_counts_in_its_own_catalogs_unless_others_are_named() -> None:
    service = Service(counted(1))
    search = ProductSearch(catalogs=["acme"], page_size=10, max_products=3)
    async with service.client() as client:
        await client.count_products(search)
        await client.count_products(search, ["zen"])
    assert [httpx.Response(200, content=body).json()["catalogs"] for body in service.bodies] == [
        ["acme"],
        ["zen"],
    ]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 115),
        ({"facets": [category("Home & Garden", "Toys")]}, 10),
        ({"exclude_facets": [category("home & garden")]}, 105),
        ({"facets": [category("x")]}, 0),
        ({"facets": [{"name": "gender", "values": ["female"]}]}, 115),
    ],
)
async def test_the_own_filter_by_category_holds_although_the_service_counts_without_it(
    filters: dict[str, Any], count: int
) -> None:
    service = Service(counted(100, **{"home & garden": 10, "electronics": 5}))
    async with service.client() as client:
        assert await client.count_products(ProductSearch(**filters)) == count


async def test_keywords_are_sent_only_to_be_understood() -> None:
    service = Service(counted(1))
    async with service.client() as client:
        await client.count_products(ProductSearch(q="red boots"))
        await client.count_products(ProductSearch(q="red boots", understand=True, relax=True))
    bodies = [httpx.Response(200, content=body).json() for body in service.bodies]
    assert [body.get("q") for body in bodies] == [None, "red boots"]


@pytest.mark.parametrize(
    ("catalogs", "message"),
    [
        ([f"shop {number}" for number in range(501)], "`catalogs` has 501 keys"),
        (["acme", " "], "`catalogs` contains an empty key"),
        (["\ud800"], "unpaired surrogate"),
        ("acme", r"`catalogs` must be a list, not the string 'acme'\. Pass \['acme'\]"),
    ],
)
async def test_catalogs_that_no_request_can_name_are_refused_before_it(
    catalogs: Sequence[str], message: str
) -> None:
    service = Service(counted(1))
    async with service.client() as client:
        with pytest.raises(ValueError, match=message):
            await client.count_products(ProductSearch(), catalogs)
    assert not service.bodies


@pytest.mark.parametrize(
    "facets",
    [
        [],
        None,
        [{"name": "category_path.depth_0"}],
        [{"name": "category_path.depth_0", "values": [{"value": "x", "count": -1}]}],
    ],
)
async def test_an_answer_without_the_counts_is_an_error(facets: Any) -> None:
    async with Service(counted(1) | {"facets": facets}).client() as client:
        with pytest.raises(OctogenResponseError, match="The count of products failed"):
            await client.count_products(ProductSearch())
