from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import MissingAPIKeyError, OctogenNotFoundError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.leaks import shown
from tests.api.servers import KEY, RawServer, http


@pytest.fixture
def connection(sandbox: Sandbox) -> Connection:
    return Connection(api_key=ApiKey(KEY), base_url=sandbox.base_url)


def search(client: OctogenClient) -> Any:
    return client.search_products(catalog="strada")


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"timeout": 0}, "timeout must be above 0 seconds, not 0"),
            ({"timeout": -1.5}, "timeout must be above 0 seconds, not -1.5"),
            ({"timeout": float("nan")}, "timeout must be above 0 seconds, not nan"),
            ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
            ({"reserve": 1}, "reserve must be from 0 to below 1, not 1"),
            ({"reserve": -0.5}, "reserve must be from 0 to below 1, not -0.5"),
            ({"base_url": "http://api.octogen.ai"}, "base_url .* over plain http"),
            ({"base_url": "api.octogen.ai"}, "base_url .* needs a scheme"),
        ],
    )
    def test_a_setting_out_of_its_range_is_named(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            Connection(api_key=ApiKey(KEY), **settings)
        with pytest.raises(ValueError, match=text):
            replace(Connection(api_key=ApiKey(KEY)), **settings)

    def test_the_key_comes_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
    ) -> None:
        with pytest.raises(MissingAPIKeyError):
            Connection(base_url=sandbox.base_url)
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", sandbox.api_key)
        assert len(Connection(base_url=sandbox.base_url).call(search).items) == 30

    def test_the_key_does_not_show(self, connection: Connection) -> None:
        assert KEY not in shown(connection)

    async def test_the_settings_reach_both_clients(self) -> None:
        retry = RetryPolicy(attempts=3, first_delay=0.001)
        with RawServer(lambda _: http(503)) as server:
            connection = Connection(
                api_key=ApiKey(KEY), base_url=server.base_url, timeout=7, retry=retry
            )
            async with (
                connection.client() as client,
                connection.blocking_client(connection.rate_limiter()) as blocking,
            ):
                for each in (client, blocking):
                    with pytest.raises(Exception, match="503"):
                        await each.list_catalogs()
                    assert each.statistics.requests == 3
        assert {request.headers["authorization"] for request in server.received} == {
            f"Bearer {KEY}"
        }

    def test_each_rate_limiter_is_new_and_has_the_reserve(self, connection: Connection) -> None:
        rate_limiter = replace(connection, reserve=0.5).rate_limiter()
        assert isinstance(rate_limiter, RateLimiter)
        assert rate_limiter.reserved_share == 0.5
        assert connection.rate_limiter() is not connection.rate_limiter()


class TestCalls:
    def test_a_call_needs_no_event_loop(self, connection: Connection, sandbox: Sandbox) -> None:
        found: MerchantProductListPage = connection.call(search)
        assert len(found.items) == 30
        assert len(sandbox.requests) == 1

    async def test_a_call_works_inside_a_running_event_loop(self, connection: Connection) -> None:
        assert asyncio.get_running_loop().is_running()
        assert len(connection.call(search).items) == 30

    def test_calls_may_run_in_many_threads_at_once(self, connection: Connection) -> None:
        together = threading.Barrier(6)

        def call(_: int) -> int:
            together.wait(30)
            return len(connection.call(search).items)

        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(call, range(6))) == [30] * 6

    def test_a_call_raises_the_client_s_error(self, connection: Connection) -> None:
        with pytest.raises(OctogenNotFoundError, match="Catalog 'nosuch' is not granted"):
            connection.call(lambda client: client.search_products(catalog="nosuch"))

    def test_the_requests_of_one_call_share_a_client(
        self, connection: Connection, sandbox: Sandbox
    ) -> None:
        async def operation(client: OctogenClient) -> list[int]:
            first = await search(client)
            found = await client.lookup_product(first.items[0].product_url)
            assert found.product.uuid is not None
            return [len(first.items), len(found.product.uuid), client.statistics.retries]

        assert connection.call(operation) == [30, 36, 0]
        assert [request.path for request in sandbox.requests] == [
            "/products/search",
            "/products/lookup",
            "/products/lookup",  # without the fields that this generation refuses
        ]

    def test_a_call_is_retried(self, connection: Connection, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("status", 503, times=2))
        quick = replace(connection, retry=RetryPolicy(first_delay=0.001))
        assert len(quick.call(search).items) == 30
        assert [request.status for request in sandbox.requests] == [503, 503, 200]


class TestClients:
    async def test_the_blocking_client_is_closed_at_the_end(self, connection: Connection) -> None:
        connection = replace(connection, retry=RetryPolicy(attempts=1))
        async with connection.blocking_client(connection.rate_limiter()) as client:
            assert len((await search(client)).items) == 30
            blocking = client
        with pytest.raises(Exception, match="closed"):
            await search(blocking)

    def test_a_raw_key_is_refused(self) -> None:
        key: Any = KEY
        with pytest.raises(TypeError, match="api_key must be an ApiKey") as caught:
            Connection(api_key=key)
        assert KEY not in str(caught.value)


class TestPickling:
    def test_the_key_is_dropped_and_looked_up_again(
        self, connection: Connection, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pickled = pickle.dumps(replace(connection, timeout=7, reserve=0.5, concurrency=2))
        assert KEY.encode() not in pickled
        with pytest.raises(MissingAPIKeyError):
            pickle.loads(pickled)
        monkeypatch.setenv("OCTO_API_KEY", sandbox.api_key)
        copy = pickle.loads(pickled)
        assert (copy.timeout, copy.reserve, copy.concurrency) == (7, 0.5, 2)
        assert copy.base_url == sandbox.base_url
        assert copy.retry == connection.retry
        assert len(copy.call(search).items) == 30
