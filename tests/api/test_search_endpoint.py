from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.errors import OctogenNotFoundError, OctogenValidationError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import RawServer, Received, http, page


def refusal(*fields: str) -> list[bytes]:
    """A 422 that names these fields."""
    detail = [{"loc": ["body", field], "msg": "refused", "type": "x"} for field in fields]
    return http(422, {"detail": detail})


def named_catalogs(sandbox: Sandbox) -> list[tuple[str, int | None]]:
    """The field that named the catalog in each request, and the status of the response."""
    return [
        (
            next(name for name in ("catalog", "catalogs") if name in (request.body or {})),
            request.status,
        )
        for request in sandbox.requests
    ]


class TestSeedGeneration:
    async def test_no_request_is_refused(self, sandbox: Sandbox, transport: Transport) -> None:
        async with open_client(sandbox, transport) as client:
            await client.search_products(catalog="strada")
            await client.search_products(catalog="northpeak")
            assert client.generation == "seed"
        assert named_catalogs(sandbox) == [("catalog", 200)] * 2
        assert [(request.body or {})["catalog"] for request in sandbox.requests] == [
            "strada",
            "northpeak",
        ]


class TestCurrentGeneration:
    async def test_only_the_first_request_is_refused(
        self, current: Sandbox, transport: Transport
    ) -> None:
        async with open_client(current, transport) as client:
            generations = [client.generation]
            first = await client.search_products(catalog="strada", limit=3)
            generations.append(client.generation)
            await client.search_products(catalog="northpeak")
            products = [item async for item in client.iter_products(catalog="strada", limit=10)]
        assert generations == ["seed", "current"]
        assert named_catalogs(current) == [("catalog", 422), *[("catalogs", 200)] * 5]
        assert current.requests[1].body == {"catalogs": ["strada"], "limit": 3}
        assert {item.catalog_key for item in first.items} == {"strada"}
        assert len(products) == 30
        assert client.statistics.retries == 0

    async def test_the_second_request_keeps_all_other_fields(
        self, current: Sandbox, transport: Transport
    ) -> None:
        search: dict[str, Any] = {
            "q": "jacket",
            "facets": [{"name": "gender", "values": ["male"]}],
            "price_min": 1,
            "price_max": 900,
            "limit": 5,
        }
        async with open_client(current, transport) as client:
            await client.search_products(catalog="northpeak", **search)
        assert [request.body for request in current.requests] == [
            {"catalog": "northpeak"} | search,
            {"catalogs": ["northpeak"]} | search,
        ]

    async def test_a_cursor_is_sent_again(self, current: Sandbox, transport: Transport) -> None:
        async with open_client(current, transport) as client:
            first = await client.search_products(catalog="strada", limit=20)
        async with open_client(current, transport) as other:
            rest = await other.search_products(catalog="strada", limit=20, cursor=first.next_cursor)
        assert len(set(first.uuids + rest.uuids)) == 30

    async def test_a_search_of_all_catalogs_is_sent_once(self, current: Sandbox) -> None:
        async with open_client(current) as client:
            await client.search_products()
        assert [(request.body, request.status) for request in current.requests] == [
            ({"limit": 50}, 200)
        ]

    async def test_both_requests_are_retried(self, current: Sandbox, transport: Transport) -> None:
        current.inject(Fault("status", 503, times=2))
        async with open_client(current, transport, retry=QUICK) as client:
            await client.search_products(catalog="strada")
        assert [request.status for request in current.requests] == [503, 503, 422, 200]

    async def test_an_unknown_catalog_is_an_error(self, current: Sandbox) -> None:
        async with open_client(current) as client:
            with pytest.raises(OctogenNotFoundError, match="Catalog 'nosuch' is not granted"):
                await client.search_products(catalog="nosuch")


class TestRefusalOfAnotherField:
    @pytest.mark.parametrize(
        "refused",
        [
            refusal("price_min"),
            refusal("facets"),
            refusal("catalogs"),
            http(422, {"detail": "catalog"}),
            http(422, {"detail": [{"loc": ["body", "catalog", "name"], "msg": "x"}]}),
            http(422, {"detail": [{"msg": "catalog"}, "catalog", {"loc": None}]}),
            http(422, {"detail": None}),
            http(422, b""),
        ],
    )
    async def test_the_first_request_raises_it(
        self, transport: Transport, refused: list[bytes]
    ) -> None:
        with RawServer(lambda _: refused) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                with pytest.raises(OctogenValidationError):
                    await client.search_products(catalog="strada")
        assert len(server.received) == 1

    async def test_the_second_request_raises_it_too(self, transport: Transport) -> None:
        def respond(request: Received) -> list[bytes]:
            if "catalog" in request.json:
                return refusal("limit", "catalog")
            return refusal("limit") if request.json["limit"] == 7 else http(200, page(["a"]))

        with RawServer(respond) as server:
            async with open_client(server, transport) as client:
                with pytest.raises(OctogenValidationError, match="limit: refused"):
                    await client.search_products(catalog="strada", limit=7)
                assert (await client.search_products(catalog="strada", limit=8)).uuids == ["a"]
