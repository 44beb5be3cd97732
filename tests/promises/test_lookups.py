from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.errors import OctogenValidationError
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import Transport, open_client
from tests.api.servers import RawServer, http

URL = "https://shop.example/1"
OPTIONS = {"resolutionMode": "index_only", "matchMode": "strict"}


def refusal(*fields: str) -> list[bytes]:
    """A 422 that names these fields."""
    detail = [{"loc": ["body", field], "msg": "refused", "type": "x"} for field in fields]
    return http(422, {"detail": detail})


def bodies(server: RawServer) -> list[Any]:
    return [request.json for request in server.received]


async def test_only_the_index_is_asked_and_only_for_this_very_address(
    current: Sandbox, transport: Transport
) -> None:
    async with open_client(current, transport) as client:
        (product,) = (await client.search_products(limit=1)).items
        found = await client.lookup_product(product.product_url)
    assert found.product.uuid == product.uuid
    assert current.requests[-1].body == {"url": product.product_url, **OPTIONS}
    assert [request.status for request in current.requests] == [200, 200]


async def test_a_service_that_knows_neither_field_is_asked_without_them_from_then_on(
    sandbox: Sandbox, transport: Transport
) -> None:
    async with open_client(sandbox, transport) as client:
        first, second = (await client.search_products(limit=2)).items
        for product in (first, second):
            assert (await client.lookup_product(product.product_url)).product.uuid == product.uuid
        assert client.statistics.retries == 0
    lookups = [(request.body, request.status) for request in sandbox.requests[1:]]
    assert lookups == [
        ({"url": first.product_url, **OPTIONS}, 422),
        ({"url": first.product_url}, 200),
        ({"url": second.product_url}, 200),
    ]


@pytest.mark.parametrize(
    "response",
    [
        refusal("url"),
        http(422, {"detail": "invalid_product_url"}),
        http(422, {"detail": "unsafe_url"}),
        http(422, {"detail": [{"loc": [], "msg": "empty"}, "matchMode", None]}),
        http(422, {"detail": {"matchMode": "refused"}}),
        http(422, b"matchMode"),
    ],
)
async def test_any_other_refusal_is_an_error_and_changes_nothing(response: list[bytes]) -> None:
    with RawServer(lambda _: response) as server:
        async with open_client(server) as client:
            for _ in range(2):
                with pytest.raises(OctogenValidationError):
                    await client.lookup_product(URL)
    assert bodies(server) == [{"url": URL, **OPTIONS}] * 2
