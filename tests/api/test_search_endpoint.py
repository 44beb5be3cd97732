"""Which generation of the contract a service speaks is found out, once, by asking."""

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
    """The field that named the catalog in each request, and the status of the answer."""
    return [
        (
            next(name for name in ("catalog", "catalogs") if name in (request.body or {})),
            request.status,
        )
        for request in sandbox.requests
    ]


class TestTheSeedGeneration:
    async def test_nothing_is_refused(self, sandbox: Sandbox, transport: Transport) -> None:
        async with open_client(sandbox, transport) as client:
            await client.search_products(catalog="strada")
            await client.search_products(catalog="northpeak")
        assert named_catalogs(sandbox) == [("catalog", 200)] * 2
        assert [(request.body or {})["catalog"] for request in sandbox.requests] == [
            "strada",
            "northpeak",
        ]


class TestTheCurrentGeneration:
    async def test_one_request_is_refused_and_then_it_is_known(
        self, current: Sandbox, transport: Transport
    ) -> None:
        async with open_client(current, transport) as client:
            first = await client.search_products(catalog="strada", limit=3)
            await client.search_products(catalog="northpeak")
            products = [item async for item in client.iter_products(catalog="strada", limit=10)]
        assert named_catalogs(current) == [("catalog", 422), *[("catalogs", 200)] * 5]
        assert current.requests[1].body == {"catalogs": ["strada"], "limit": 3}
        assert {item.catalog_key for item in first.items} == {"strada"}
        assert len(products) == 30
        assert client.statistics.retries == 0

    async def test_everything_else_stays_in_the_request(
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

    async def test_a_cursor_goes_along(self, current: Sandbox, transport: Transport) -> None:
        async with open_client(current, transport) as client:
            first = await client.search_products(catalog="strada", limit=20)
        async with open_client(current, transport) as other:
            rest = await other.search_products(catalog="strada", limit=20, cursor=first.next_cursor)
        assert len(set(first.uuids + rest.uuids)) == 30

    async def test_a_search_of_everything_needs_no_finding_out(self, current: Sandbox) -> None:
        async with open_client(current) as client:
            await client.search_products()
        assert [(request.body, request.status) for request in current.requests] == [
            ({"limit": 50}, 200)
        ]

    async def test_each_request_of_it_is_retried(
        self, current: Sandbox, transport: Transport
    ) -> None:
        current.inject(Fault("status", 503, times=2))
        async with open_client(current, transport, retry=QUICK) as client:
            await client.search_products(catalog="strada")
        assert [request.status for request in current.requests] == [503, 503, 422, 200]

    async def test_an_unknown_catalog_is_one_there_too(self, current: Sandbox) -> None:
        async with open_client(current) as client:
            with pytest.raises(OctogenNotFoundError, match="Catalog 'nosuch' is not granted"):
                await client.search_products(catalog="nosuch")


class TestARefusalOfSomethingElse:
    @pytest.mark.parametrize(
        "answer",
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
    async def test_is_an_error_at_once(self, transport: Transport, answer: list[bytes]) -> None:
        with RawServer(lambda _: answer) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                with pytest.raises(OctogenValidationError):
                    await client.search_products(catalog="strada")
        assert len(server.received) == 1

    async def test_after_the_finding_out_is_an_error_as_well(self, transport: Transport) -> None:
        def answer(request: Received) -> list[bytes]:
            if "catalog" in request.json:
                return refusal("limit", "catalog")
            return refusal("limit") if request.json["limit"] == 7 else http(200, page(["a"]))

        with RawServer(answer) as server:
            async with open_client(server, transport) as client:
                with pytest.raises(OctogenValidationError, match="limit: refused"):
                    await client.search_products(catalog="strada", limit=7)
                assert (await client.search_products(catalog="strada", limit=8)).uuids == ["a"]
