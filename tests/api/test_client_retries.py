"""What is sent again, how often, after which waits, and when it is over."""

from __future__ import annotations

import time
from typing import Any

import pytest

from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenConnectionError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import RawServer, dripping, hanging, http, in_turn, page

GOOD = http(200, page(["a"]))


def statuses(sandbox: Sandbox) -> list[int | None]:
    return [request.status for request in sandbox.requests]


class TestStorms:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_a_short_one_is_survived(
        self, sandbox: Sandbox, transport: Transport, status: int
    ) -> None:
        sandbox.inject(Fault("status", status, times=3, retry_after=0))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            found = await client.search_products(catalog="strada")
        assert len(found.items) == 30
        assert statuses(sandbox) == [status] * 3 + [200]
        assert (client.statistics.requests, client.statistics.retries) == (4, 3)

    @pytest.mark.parametrize(("status", "attempts"), [(429, 1), (503, 1), (503, 3)])
    async def test_a_long_one_ends_after_the_last_attempt(
        self, sandbox: Sandbox, transport: Transport, status: int, attempts: int
    ) -> None:
        sandbox.inject(Fault("status", status, retry_after=0))
        policy = RetryPolicy(attempts=attempts, first_delay=0.001)
        async with open_client(sandbox, transport, retry=policy) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.search_products()
        assert caught.value.status_code == status
        assert caught.value.request_id == sandbox.requests[-1].request_id
        assert statuses(sandbox) == [status] * attempts
        assert client.statistics.retries == attempts - 1

    async def test_an_endless_one_of_429_ends_at_the_deadline(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.inject(Fault("status", 429, retry_after=0))
        policy = RetryPolicy(attempts=2, deadline=0.3, first_delay=0.001, max_delay=0.01)
        async with open_client(sandbox, transport, retry=policy) as client:
            # The deadline ends a wait or, if it comes to that, the last try.
            with pytest.raises((OctogenRateLimitError, OctogenTimeoutError)):
                await client.search_products()
        assert len(sandbox.requests) > 2

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422])
    async def test_any_other_status_is_final(
        self, sandbox: Sandbox, transport: Transport, status: int
    ) -> None:
        sandbox.inject(Fault("status", status, times=1, retry_after=0))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            with pytest.raises(OctogenAPIError):
                await client.search_products()
        assert statuses(sandbox) == [status]
        assert client.statistics.retries == 0

    async def test_every_operation_and_every_page_is_covered(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        for path in ("/catalogs", "/products/lookup"):
            sandbox.inject(Fault("status", 503, times=2, path=path))
        for number in (1, 2, 3):
            sandbox.inject(Fault("status", 503, times=2, path="/products/search", page=number))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            assert len(await client.list_catalogs()) == 2
            products = [item async for item in client.iter_products(catalog="strada", limit=10)]
            assert (await client.lookup_product(products[0].product_url)).product
        assert len({product.uuid for product in products}) == len(products) == 30
        assert client.statistics.retries == 10


class TestNoAnswer:
    async def test_a_body_cut_in_the_middle_is_read_again(
        self, either: Sandbox, transport: Transport
    ) -> None:
        either.inject(Fault("cut", times=2))
        async with open_client(either, transport, retry=QUICK) as client:
            found = await client.search_products(limit=40)
        assert len(set(found.uuids)) == 40
        assert [request.faults for request in either.requests] == [("cut",), ("cut",), ()]

    async def test_one_that_is_always_cut_is_a_connection_error(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.inject(Fault("cut"))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            with pytest.raises(OctogenConnectionError) as caught:
                await client.search_products(catalog="strada")
        assert type(caught.value) is OctogenConnectionError
        assert len(sandbox.requests) == 4
        text = str(caught.value)
        assert text.startswith(f"Catalog 'strada': no complete answer from {sandbox.base_url} (")
        assert text.endswith("Check base_url and the network, then try again.")
        assert not hasattr(caught.value, "status_code")

    async def test_a_connection_that_closes_without_an_answer(self, transport: Transport) -> None:
        with RawServer(in_turn([], [b""], GOOD)) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                assert (await client.search_products()).uuids == ["a"]
        assert len(server.received) == 3

    async def test_a_server_that_is_not_there(self, transport: Transport) -> None:
        with RawServer(lambda _: []) as gone:
            pass
        async with open_client(gone, transport, retry=QUICK) as client:
            with pytest.raises(OctogenConnectionError, match="ConnectError") as caught:
                await client.list_catalogs()
        assert type(caught.value) is OctogenConnectionError
        assert (client.statistics.requests, client.statistics.retries) == (4, 3)

    async def test_one_that_is_late_is_tried_again(self, transport: Transport) -> None:
        answers = in_turn([], GOOD)

        def answer(request: Any) -> Any:
            return answers(request) or hanging(lambda: server)

        with RawServer(answer) as server:
            async with open_client(server, transport, retry=QUICK, timeout=0.3) as client:
                assert (await client.search_products()).uuids == ["a"]
        assert len(server.received) >= 2


class TestWaits:
    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_is_added_to_a_growing_delay(
        self, sandbox: Sandbox, transport: Transport, waits: list[float], status: int
    ) -> None:
        sandbox.inject(Fault("status", status, times=3, retry_after=7))
        policy = RetryPolicy(first_delay=1)
        async with open_client(sandbox, transport, retry=policy) as client:
            await client.search_products()
        first, second, third = waits
        assert 8 <= first <= 9 <= second <= 10 < 11 <= third <= 12
        assert client.statistics.rate_limit_wait_seconds == (sum(waits) if status == 429 else 0)

    async def test_a_date_is_honoured(self, transport: Transport, waits: list[float]) -> None:
        headers = {
            "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            "retry_after": "Wed, 21 Oct 2026 07:29:30 GMT",
        }
        with RawServer(in_turn(http(503, b"", **headers), GOOD)) as server:
            policy = RetryPolicy(first_delay=1)
            async with open_client(server, transport, retry=policy) as client:
                await client.search_products()
        (wait,) = waits
        assert 91 <= wait <= 92

    async def test_without_one_the_delay_grows_by_itself(
        self, sandbox: Sandbox, transport: Transport, waits: list[float]
    ) -> None:
        sandbox.inject(Fault("cut", times=4))
        policy = RetryPolicy(first_delay=1)
        async with open_client(sandbox, transport, retry=policy) as client:
            await client.search_products()
        first, second, third, fourth = waits
        assert 1 <= first <= 2 <= second <= 3 < 4 <= third <= 5 < 8 <= fourth <= 9
        assert client.statistics.rate_limit_wait_seconds == 0

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_longer_one_than_allowed_is_raised_at_once(
        self, sandbox: Sandbox, transport: Transport, waits: list[float], status: int
    ) -> None:
        sandbox.inject(Fault("status", status, retry_after=61))
        policy = RetryPolicy(max_retry_after=60)
        async with open_client(sandbox, transport, retry=policy) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.search_products()
        assert caught.value.retry_after == 61
        assert waits == []
        assert len(sandbox.requests) == 1

    async def test_one_beyond_the_deadline_is_raised_at_once(
        self, sandbox: Sandbox, transport: Transport, waits: list[float]
    ) -> None:
        sandbox.inject(Fault("status", 429, retry_after=30))
        policy = RetryPolicy(deadline=20)
        async with open_client(sandbox, transport, retry=policy) as client:
            with pytest.raises(OctogenRateLimitError):
                await client.search_products()
        assert waits == []

    async def test_the_real_limiter_s_429_is_waited_out(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.set_rate_limit(60)
        async with open_client(sandbox, transport, retry=RetryPolicy()) as client:
            for _ in range(200):
                await client.search_products(limit=1)
                if client.statistics.retries:
                    break
        assert statuses(sandbox)[-2:] == [429, 200]
        assert client.statistics.rate_limit_wait_seconds >= 1


class TestTheDeadline:
    @pytest.mark.parametrize("slow", [hanging, dripping])
    async def test_it_ends_a_request_that_goes_on_for_ever(
        self, transport: Transport, slow: Any
    ) -> None:
        policy = RetryPolicy(deadline=0.25)
        with RawServer(lambda _: slow(lambda: server)) as server:
            async with open_client(server, transport, retry=policy) as client:
                with pytest.raises(OctogenTimeoutError) as caught:
                    await client.search_products()
            assert not server.closing.is_set()
        assert str(caught.value) == (
            f"The search of all catalogs: {server.base_url} did not answer in time (timeout 30 s, "
            "0.25 s with all retries). Try again, or raise the timeout."
        )

    async def test_it_ends_retries(self, sandbox: Sandbox, transport: Transport) -> None:
        sandbox.inject(Fault("status", 503))
        policy = RetryPolicy(attempts=1000, deadline=0.25, first_delay=0.01, max_delay=0.02)
        async with open_client(sandbox, transport, retry=policy) as client:
            with pytest.raises((OctogenServerError, OctogenTimeoutError)):
                await client.search_products()
        assert len(sandbox.requests) < 1000

    async def test_a_first_answer_that_took_long_counts(
        self, monkeypatch: pytest.MonkeyPatch, transport: Transport, waits: list[float]
    ) -> None:
        passed, clock = [0.0], time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + passed[0])

        def answer(_: Any) -> list[bytes]:
            passed[0] = 20
            return http(503, retry_after="10")

        with RawServer(answer) as server:
            async with open_client(server, transport, retry=RetryPolicy(deadline=25)) as client:
                with pytest.raises(OctogenServerError):
                    await client.search_products()
        assert waits == []
        assert len(server.received) == 1

    async def test_waiting_for_the_limiter_does_not_count(self, waits: list[float]) -> None:
        rate_limiter = RateLimiter(reserve=0.5)
        policy = RetryPolicy(attempts=1, deadline=5)
        with Sandbox(catalogs=1, products=3, requests_per_minute=1) as sandbox:
            async with open_client(sandbox, rate_limiter=rate_limiter, retry=policy) as client:
                assert [item async for item in client.iter_products()]
                sandbox.set_rate_limit(1)
                assert [item async for item in client.iter_products()]
        assert waits[0] > 5

    async def test_an_unlimited_timeout_is_limited_by_it(self, transport: Transport) -> None:
        policy = RetryPolicy(deadline=0.2)
        settings = {"timeout": float("inf")}
        with RawServer(lambda _: hanging(lambda: server)) as server:
            async with open_client(server, transport, retry=policy, **settings) as client:
                with pytest.raises(OctogenTimeoutError, match=r"0\.2 s with all retries"):
                    await client.search_products()
