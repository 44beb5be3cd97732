"""What passes is requested again by both clients, with the same headers and the same body."""

from __future__ import annotations

import time

import httpx

from octogen_dagster import OctogenClient
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import KEY, RawServer, http, in_turn, page


async def test_a_request_has_the_key_the_headers_and_the_body(transport: Transport) -> None:
    with RawServer(in_turn(http(503), http(200, page(["a"])))) as server:
        async with open_client(server, transport, retry=QUICK) as client:
            await client.search_products(q="dress")
    for request in server.received:
        assert (request.method, request.target) == ("POST", "/v1/products/search")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["accept"] == "application/json"
        assert request.headers["content-type"] == "application/json"
        assert "gzip" in request.headers["accept-encoding"]
        assert request.headers["user-agent"].startswith("octogen-dagster/")
        assert request.headers["x-octogen-request-context"] == (
            '{"trigger":"background","application":"octogen-dagster"}'
        )
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert request.json == {"q": "dress", "understand": False, "limit": 50}
    assert len(server.received) == 2


async def test_a_given_client_adds_its_headers_but_not_its_credentials() -> None:
    headers = {"X-Team": "data", "Authorization": "Basic b3RoZXI="}
    with RawServer(lambda _: http(200, [])) as server:
        async with httpx.AsyncClient(headers=headers, auth=("other", "other")) as http_client:
            client = OctogenClient(api_key=KEY, base_url=server.base_url, http_client=http_client)
            await client.list_catalogs()
    (request,) = server.received
    assert request.headers["x-team"] == "data"
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_retry_after_is_waited_for(transport: Transport) -> None:
    limited = http(429, {"detail": "rate_limit_exceeded"}, retry_after="1")
    with RawServer(in_turn(limited, http(200, page(["a"])))) as server:
        async with open_client(server, transport, retry=QUICK) as client:
            began = time.monotonic()
            await client.search_products()
            assert time.monotonic() - began >= 1
            assert client.statistics.rate_limit_wait_seconds >= 1


async def test_every_operation_and_every_page_is_retried(sandbox: Sandbox) -> None:
    for path in ("/catalogs", "/products/lookup"):
        sandbox.inject(Fault("status", 503, times=2, path=path))
    for number in (1, 2, 3):
        sandbox.inject(Fault("status", 503, times=2, path="/products/search", page=number))
    async with open_client(sandbox, retry=QUICK) as client:
        assert len(await client.list_catalogs()) == 2
        products = [item async for item in client.iter_products(catalog="strada", limit=10)]
        assert (await client.lookup_product(products[0].product_url)).product
    assert len({product.uuid for product in products}) == len(products) == 30
    assert client.statistics.retries == 10


async def test_a_bulk_read_gets_no_429_and_leaves_the_reserve() -> None:
    with Sandbox(
        catalogs={"northpeak": 24}, api_key=KEY, requests_per_minute=600, generation="seed"
    ) as sandbox:
        async with open_client(sandbox, rate_limiter=RateLimiter(reserve=0.99)) as client:
            pages = [page async for page in client.iter_pages(catalog="northpeak", limit=2)]
        async with httpx.AsyncClient(base_url=sandbox.base_url) as probe:
            left = (await probe.get("/catalogs")).headers["x-ratelimit-remaining"]
        assert len(pages) == 12
        assert [request.status for request in sandbox.requests[:-1]] == [200] * 12
    assert client.statistics.rate_limit_wait_seconds > 0
    assert int(left) >= 0.99 * 600 - 2, "whole tokens, and the last request is on its way"
