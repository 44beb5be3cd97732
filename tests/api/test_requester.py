from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.httpx_transport import HttpxTransport
from octogen_dagster.api.lookup_endpoint import parsed_lookup
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.requester import HEADERS, Requester
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.spending import Spending
from octogen_dagster.api.wait_log import WaitLog
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenConnectionError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import ONCE, QUICK, Clock, Transport, Waits, open_client
from tests.api.leaks import leaks
from tests.api.servers import KEY, RawServer, Received, dripping, hanging, http, in_turn, page

GOOD = http(200, page(["a"]))


def requester(
    http_client: httpx.AsyncClient, retry: RetryPolicy, waits: Waits, clock: Clock | None = None
) -> Requester:
    key = ApiKey(KEY)
    return Requester(
        HttpxTransport(key, HEADERS, 30, http_client),
        "https://api.octogen.ai/v1",
        key,
        timeout=30,
        retry=retry,
        rate_limiter=RateLimiter(),
        spending=Spending(),
        waits=WaitLog(),
        sleep=waits.sleep,
        clock=clock or Clock(),
    )


def statuses(sandbox: Sandbox) -> list[int | None]:
    return [request.status for request in sandbox.requests]


class TestRequest:
    async def test_it_has_the_key_the_headers_and_the_body(self, transport: Transport) -> None:
        with RawServer(lambda _: http(200, page(["a"]))) as server:
            async with open_client(server, transport) as client:
                await client.search_products(q="dress")
        (request,) = server.received
        assert (request.method, request.target) == ("POST", "/v1/products/search")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["accept"] == "application/json"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("octogen-dagster/")
        assert request.headers["x-octogen-request-context"] == (
            '{"trigger":"background","application":"octogen-dagster"}'
        )
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert request.json == {"q": "dress", "understand": False, "limit": 50}

    async def test_a_path_of_the_base_url_is_kept(self) -> None:
        with RawServer(lambda _: http(200, [])) as server:
            base_url = f"{server.origin}/octogen/api/"
            async with OctogenClient(api_key=KEY, base_url=base_url) as client:
                assert await client.list_catalogs() == []
        assert [(r.method, r.target) for r in server.received] == [("GET", "/octogen/api/catalogs")]

    async def test_a_given_client_adds_its_headers_but_not_its_credentials(self) -> None:
        headers = {"X-Team": "data", "Authorization": "Basic b3RoZXI="}
        with RawServer(lambda _: http(200, [])) as server:
            async with httpx.AsyncClient(headers=headers, auth=("other", "other")) as http_client:
                client = OctogenClient(
                    api_key=KEY, base_url=server.base_url, http_client=http_client
                )
                await client.list_catalogs()
        (request,) = server.received
        assert request.headers["x-team"] == "data"
        assert '"background"' in request.headers["x-octogen-request-context"]
        assert request.headers["authorization"] == f"Bearer {KEY}"


class TestRetries:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_a_failure_that_passes_is_retried(
        self, sandbox: Sandbox, transport: Transport, status: int
    ) -> None:
        sandbox.inject(Fault("status", status, times=3, retry_after=0))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            found = await client.search_products(catalog="strada")
        assert len(found.items) == 30
        assert statuses(sandbox) == [status] * 3 + [200]
        assert (client.statistics.requests, client.statistics.retries) == (4, 3)

    @pytest.mark.parametrize(("status", "attempts"), [(429, 1), (503, 1), (503, 3)])
    async def test_a_failure_that_stays_ends_after_the_last_attempt(
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

    async def test_only_the_deadline_ends_an_endless_429(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.inject(Fault("status", 429, retry_after=0))
        policy = RetryPolicy(attempts=2, deadline=0.3, first_delay=0.001, max_delay=0.01)
        async with open_client(sandbox, transport, retry=policy) as client:
            # The deadline ends a wait or, if it passes later, the last attempt.
            with pytest.raises((OctogenRateLimitError, OctogenTimeoutError)):
                await client.search_products()
        assert len(sandbox.requests) > 2

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422])
    async def test_any_other_status_is_not_retried(
        self, sandbox: Sandbox, transport: Transport, status: int
    ) -> None:
        sandbox.inject(Fault("status", status, times=1, retry_after=0))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            with pytest.raises(OctogenAPIError):
                await client.search_products()
        assert statuses(sandbox) == [status]
        assert client.statistics.retries == 0

    async def test_every_operation_and_every_page_is_retried(
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


class TestMissingResponses:
    async def test_a_body_that_is_cut_off_is_requested_again(
        self, either: Sandbox, transport: Transport
    ) -> None:
        either.inject(Fault("cut", times=2))
        async with open_client(either, transport, retry=QUICK) as client:
            found = await client.search_products(limit=40)
        assert len(set(found.uuids)) == 40
        assert [request.faults for request in either.requests] == [("cut",), ("cut",), ()]

    async def test_a_body_that_is_always_cut_off_is_a_connection_error(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.inject(Fault("cut"))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            with pytest.raises(OctogenConnectionError) as caught:
                await client.search_products(catalog="strada")
        assert type(caught.value) is OctogenConnectionError
        assert len(sandbox.requests) == 4
        text = str(caught.value)
        assert text.startswith(f"Catalog 'strada': no complete response from {sandbox.base_url} (")
        assert text.endswith("Check base_url and the network, then try again.")
        assert not hasattr(caught.value, "status_code")

    async def test_a_connection_that_closes_without_a_response_is_retried(
        self, transport: Transport
    ) -> None:
        with RawServer(in_turn([], [b""], GOOD)) as server:
            async with open_client(server, transport, retry=QUICK) as client:
                assert (await client.search_products()).uuids == ["a"]
        assert len(server.received) == 3

    async def test_a_refused_connection_is_retried(self, transport: Transport) -> None:
        with RawServer(lambda _: []) as gone:
            pass
        async with open_client(gone, transport, retry=QUICK) as client:
            with pytest.raises(OctogenConnectionError, match="connect") as caught:
                await client.list_catalogs()
        assert type(caught.value) is OctogenConnectionError
        assert (client.statistics.requests, client.statistics.retries) == (4, 3)

    async def test_a_late_response_is_requested_again(self, transport: Transport) -> None:
        responses = in_turn([], GOOD)

        def respond(request: Received) -> Iterable[bytes]:
            return responses(request) or hanging(lambda: server)

        with RawServer(respond) as server:
            async with open_client(server, transport, retry=QUICK, timeout=0.3) as client:
                assert (await client.search_products()).uuids == ["a"]
        assert len(server.received) >= 2


class TestWaits:
    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_is_added_to_a_growing_delay(
        self, sandbox: Sandbox, transport: Transport, waits: Waits, status: int
    ) -> None:
        sandbox.inject(Fault("status", status, times=3, retry_after=7))
        policy = RetryPolicy(first_delay=1)
        async with open_client(sandbox, transport, retry=policy, waits=waits) as client:
            await client.search_products()
        first, second, third = waits
        assert 8 <= first <= 9 <= second <= 10 < 11 <= third <= 12
        assert client.statistics.rate_limit_wait_seconds == (sum(waits) if status == 429 else 0)

    async def test_retry_after_may_be_a_date(self, transport: Transport, waits: Waits) -> None:
        unavailable = http(
            503,
            date="Wed, 21 Oct 2026 07:28:00 GMT",
            retry_after="Wed, 21 Oct 2026 07:29:30 GMT",
        )
        with RawServer(in_turn(unavailable, GOOD)) as server:
            policy = RetryPolicy(first_delay=1)
            async with open_client(server, transport, retry=policy, waits=waits) as client:
                await client.search_products()
        (wait,) = waits
        assert 91 <= wait <= 92

    async def test_without_retry_after_the_delay_alone_grows(
        self, sandbox: Sandbox, transport: Transport, waits: Waits
    ) -> None:
        sandbox.inject(Fault("cut", times=4))
        policy = RetryPolicy(first_delay=1)
        async with open_client(sandbox, transport, retry=policy, waits=waits) as client:
            await client.search_products()
        first, second, third, fourth = waits
        assert 1 <= first <= 2 <= second <= 3 < 4 <= third <= 5 < 8 <= fourth <= 9
        assert client.statistics.rate_limit_wait_seconds == 0

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_retry_after_above_the_maximum_is_raised_at_once(
        self, sandbox: Sandbox, transport: Transport, waits: Waits, status: int
    ) -> None:
        sandbox.inject(Fault("status", status, retry_after=61))
        policy = RetryPolicy(max_retry_after=60)
        async with open_client(sandbox, transport, retry=policy, waits=waits) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.search_products()
        assert caught.value.retry_after == 61
        assert waits == []
        assert len(sandbox.requests) == 1

    async def test_a_retry_after_beyond_the_deadline_is_raised_at_once(
        self, sandbox: Sandbox, transport: Transport, waits: Waits
    ) -> None:
        sandbox.inject(Fault("status", 429, retry_after=30))
        policy = RetryPolicy(deadline=20)
        async with open_client(sandbox, transport, retry=policy, waits=waits) as client:
            with pytest.raises(OctogenRateLimitError):
                await client.search_products()
        assert waits == []

    async def test_the_sandbox_s_rate_limit_is_waited_for(
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


class TestRateLimiting:
    """A paced request takes a place of the rate limiter and always gives it back."""

    @pytest.mark.parametrize("status", [200, 422, 503])
    async def test_the_limiter_learns_from_the_headers_of_any_response(
        self, waits: Waits, status: int
    ) -> None:
        headers = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "12"}
        mock = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, json={}))
        async with httpx.AsyncClient(transport=mock) as http_client:
            sender = requester(http_client, ONCE, waits)
            for _ in range(2):
                with contextlib.suppress(OctogenAPIError):
                    await sender.request("POST", "/x", "It", {}, paced=True)
        assert waits == pytest.approx([1], abs=0.1)
        assert sender.statistics.rate_limit_wait_seconds == sum(waits)

    async def test_a_request_that_is_not_paced_does_not_wait(self, waits: Waits) -> None:
        headers = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0"}
        mock = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, json={}))
        async with httpx.AsyncClient(transport=mock) as http_client:
            sender = requester(http_client, ONCE, waits)
            await sender.request("POST", "/x", "It", {}, paced=True)
            await sender.request("POST", "/x", "It", {})
        assert waits == []

    async def test_waiting_for_the_limiter_does_not_count_towards_the_deadline(
        self, waits: Waits
    ) -> None:
        rate_limiter = RateLimiter(reserve=0.5)
        policy = RetryPolicy(attempts=1, deadline=5)
        with Sandbox(catalogs=1, products=3, requests_per_minute=1, generation="seed") as sandbox:
            async with open_client(
                sandbox, rate_limiter=rate_limiter, retry=policy, waits=waits
            ) as client:
                assert [item async for item in client.iter_products()]
                sandbox.set_rate_limit(1)
                assert [item async for item in client.iter_products()]
        assert waits[0] > 5


class TestDeadline:
    @pytest.mark.parametrize("slow", [hanging, dripping])
    async def test_it_ends_a_request_that_never_completes(
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

    async def test_it_ends_the_retries(self, sandbox: Sandbox, transport: Transport) -> None:
        sandbox.inject(Fault("status", 503))
        policy = RetryPolicy(attempts=1000, deadline=0.25, first_delay=0.01, max_delay=0.02)
        async with open_client(sandbox, transport, retry=policy) as client:
            with pytest.raises((OctogenServerError, OctogenTimeoutError)):
                await client.search_products()
        assert len(sandbox.requests) < 1000

    async def test_the_time_of_the_first_attempt_counts(self, waits: Waits) -> None:
        clock = Clock()
        received: list[httpx.Request] = []

        def respond_late(request: httpx.Request) -> httpx.Response:
            received.append(request)
            clock.now += 20
            return httpx.Response(503, headers={"retry-after": "10"})

        mock = httpx.MockTransport(respond_late)
        async with httpx.AsyncClient(transport=mock) as http_client:
            sender = requester(http_client, RetryPolicy(deadline=25), waits, clock)
            with pytest.raises(OctogenServerError):
                await sender.request("GET", "/catalogs", "It")
        assert waits == []
        assert len(received) == 1

    async def test_each_attempt_has_what_is_left_of_it(self, waits: Waits) -> None:
        clock = Clock()
        timeouts: list[float] = []

        def respond_late(request: httpx.Request) -> httpx.Response:
            timeouts.append(request.extensions["timeout"]["read"])
            clock.now += 20
            return httpx.Response(503 if len(timeouts) == 1 else 200)

        mock = httpx.MockTransport(respond_late)
        async with httpx.AsyncClient(transport=mock) as http_client:
            sender = requester(http_client, RetryPolicy(deadline=25), waits, clock)
            await sender.request("GET", "/catalogs", "It")
        assert timeouts == [25, 5]

    async def test_it_limits_an_infinite_timeout(self, transport: Transport) -> None:
        policy = RetryPolicy(deadline=0.2)
        with RawServer(lambda _: hanging(lambda: server)) as server:
            async with open_client(server, transport, retry=policy, timeout=float("inf")) as client:
                with pytest.raises(OctogenTimeoutError, match=r"0\.2 s with all retries"):
                    await client.search_products()


class TestCancellation:
    async def test_a_cancelled_request_gives_its_place_back(self) -> None:
        rate_limiter = RateLimiter()
        started = asyncio.Event()

        async def never_responds(_: httpx.Request) -> httpx.Response:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        mock = httpx.MockTransport(never_responds)
        async with httpx.AsyncClient(transport=mock) as http_client:
            client = OctogenClient(
                api_key=KEY, http_client=http_client, rate_limiter=rate_limiter, retry=ONCE
            )
            url = "https://shop.example"
            lookup = asyncio.create_task(client.get_raw_lookup(url, parsed_lookup))
            await started.wait()
            lookup.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lookup
        rate_limiter.reserve()
        rate_limiter.update({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "13"})
        assert rate_limiter.reserve() == 0, "no request is pending"


class TestRedirects:
    """A redirect is never followed, so that the key stays with the configured host."""

    async def test_another_server_receives_nothing(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        with RawServer(lambda _: http(200, page(["stolen"]))) as elsewhere:
            sandbox.inject(Fault("redirect", f"{elsewhere.base_url}/products/search"))
            async with open_client(sandbox, transport, retry=QUICK) as client:
                with pytest.raises(OctogenAPIError) as caught:
                    await client.search_products(catalog="strada")
            assert elsewhere.received == []
        assert type(caught.value) is OctogenAPIError
        assert caught.value.status_code == 307
        assert "It redirects to 127.0.0.1, and redirects are not followed" in str(caught.value)
        assert len(sandbox.requests) == 1
        assert leaks(caught.value, KEY) == []

    async def test_a_redirect_to_the_same_server_is_not_followed_either(
        self, sandbox: Sandbox, transport: Transport
    ) -> None:
        sandbox.inject(Fault("redirect", f"{sandbox.base_url}/products/search", times=1))
        async with open_client(sandbox, transport, retry=QUICK) as client:
            with pytest.raises(OctogenAPIError) as caught:
                await client.search_products(catalog="strada")
        assert [request.status for request in sandbox.requests] == [307]
        assert KEY.encode() not in pickle.dumps(caught.value)
        assert leaks(caught.value, KEY) == []

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_no_status_is_followed(self, transport: Transport, status: int) -> None:
        with RawServer(lambda _: http(200, [])) as elsewhere:
            location = f"{elsewhere.base_url}/catalogs"
            with RawServer(lambda _: http(status, b"", location=location)) as server:
                async with open_client(server, transport) as client:
                    with pytest.raises(OctogenAPIError) as caught:
                        await client.list_catalogs()
            assert caught.value.status_code == status
            assert elsewhere.received == []

    async def test_a_given_client_that_follows_redirects_does_not_follow_this_one(
        self, sandbox: Sandbox
    ) -> None:
        with RawServer(lambda _: http(200, page(["stolen"]))) as elsewhere:
            sandbox.inject(Fault("redirect", f"{elsewhere.base_url}/products/search"))
            async with httpx.AsyncClient(follow_redirects=True) as http_client:
                client = OctogenClient(
                    api_key=KEY, base_url=sandbox.base_url, http_client=http_client, retry=ONCE
                )
                with pytest.raises(OctogenAPIError, match="redirects are not followed"):
                    await client.search_products()
            assert elsewhere.received == []
