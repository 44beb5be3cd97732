"""RateLimiter alone, and with a client that reads from a small bucket; and InFlight."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.api.pacing import InFlight, RateLimiter
from octogen_dagster.errors import OctogenRateLimitError, OctogenServerError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import Clock, Transport, Waits, open_client
from tests.api.servers import KEY


def headers(limit: object, remaining: object) -> dict[str, str]:
    return {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": str(remaining)}


def limiter_at(limit: int, remaining: int, reserve: float = 0.2) -> tuple[RateLimiter, Clock]:
    """A rate limiter that has just learned what is left in the bucket."""
    clock = Clock()
    rate_limiter = RateLimiter(reserve, clock=clock)
    rate_limiter.reserve()
    rate_limiter.update(headers(limit, remaining))
    return rate_limiter, clock


class TestReserve:
    def test_there_is_no_delay_before_the_first_response(self) -> None:
        rate_limiter = RateLimiter(clock=Clock())
        assert [rate_limiter.reserve() for _ in range(100)] == [0.0] * 100

    @pytest.mark.parametrize(("limit", "remaining"), [(0.001, 0), (0, 0), (60, -1e9), (60, 1e9)])
    def test_absurd_headers_cause_no_long_delay(self, limit: float, remaining: float) -> None:
        rate_limiter = RateLimiter(clock=Clock())
        rate_limiter.reserve()
        rate_limiter.update(headers(limit, remaining))
        assert rate_limiter.reserve() <= 13

    def test_above_the_reserve_there_is_no_delay(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=15)
        assert [rate_limiter.reserve() for _ in range(3)] == [0.0] * 3

    def test_at_the_reserve_the_delays_grow_at_the_rate_of_refill(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=12)
        assert [rate_limiter.reserve() for _ in range(4)] == pytest.approx([1, 2, 3, 4])

    def test_below_the_reserve_the_delay_refills_the_reserve(self) -> None:
        rate_limiter, _ = limiter_at(limit=120, remaining=4, reserve=0.5)
        assert [rate_limiter.reserve(), rate_limiter.reserve()] == pytest.approx([28.5, 29])

    def test_the_bucket_refills_as_time_passes(self) -> None:
        rate_limiter, clock = limiter_at(limit=60, remaining=12)
        clock.now += 2.5
        assert [rate_limiter.reserve() for _ in range(4)] == pytest.approx([0, 0, 0.5, 1.5])

    def test_without_a_reserve_the_whole_bucket_is_spent(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=2, reserve=0)
        assert [rate_limiter.reserve() for _ in range(3)] == pytest.approx([0, 0, 1])

    def test_pending_requests_are_subtracted_from_the_header(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=60)
        for _ in range(3):
            rate_limiter.reserve()
        rate_limiter.update(headers(60, 14))
        assert rate_limiter.reserve() == pytest.approx(1), "14 - 12 in reserve - 2 pending"

    def test_a_response_without_headers_gives_its_place_back(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=60)
        for _ in range(3):
            rate_limiter.reserve()
        rate_limiter.update(None)
        rate_limiter.update({})
        rate_limiter.update(headers(60, 13))
        assert [rate_limiter.reserve(), rate_limiter.reserve()] == pytest.approx([0, 1])

    @pytest.mark.parametrize(
        "odd",
        [
            {"x-ratelimit-limit": "120"},
            {"x-ratelimit-remaining": "0"},
            headers("many", 0),
            headers(60, "none"),
            headers("", ""),
            headers(0, 0),
            headers(-60, 0),
            headers("inf", 0),
            headers("nan", 0),
            headers(60, "nan"),
        ],
    )
    def test_invalid_headers_change_nothing(self, odd: dict[str, str]) -> None:
        rate_limiter, clock = limiter_at(limit=60, remaining=12)
        clock.now += 1
        rate_limiter.reserve()
        rate_limiter.update(odd)
        assert rate_limiter.reserve() == pytest.approx(1)

    @given(
        limit=st.integers(1, 10_000),
        reserve=st.floats(0, 0.99),
        gaps=st.lists(st.floats(0, 5), min_size=1, max_size=60),
    )
    def test_a_bulk_read_never_spends_the_reserve(
        self, limit: int, reserve: float, gaps: list[float]
    ) -> None:
        clock = Clock()
        rate_limiter = RateLimiter(reserve, clock=clock)
        per_second, tokens, filled_at = limit / 60, float(limit), clock.now
        for gap in gaps:
            clock.now += gap
            clock.now += rate_limiter.reserve()
            tokens = min(limit, tokens + (clock.now - filled_at) * per_second) - 1
            filled_at = clock.now
            # The header is in whole tokens; the first request is sent before any is known.
            assert tokens >= min(reserve * limit, limit - 1) - 1 - 1e-6
            rate_limiter.update(headers(limit, int(tokens)))

    @pytest.mark.parametrize("reserve", [-0.1, 1, 1.5, float("nan")])
    def test_a_reserve_out_of_its_range_is_named(self, reserve: float) -> None:
        with pytest.raises(ValueError, match="reserve must be from 0 to below 1"):
            RateLimiter(reserve)


class TestThreads:
    def test_each_place_is_taken_once(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=12)
        together = threading.Barrier(8)

        def take(_: int) -> list[float]:
            together.wait(30)
            return [rate_limiter.reserve() for _ in range(200)]

        with ThreadPoolExecutor(8) as threads:
            delays = sorted(delay for taken in threads.map(take, range(8)) for delay in taken)
        assert delays == pytest.approx([float(place) for place in range(1, 1601)])

    def test_every_place_that_is_given_back_is_free(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=60)
        together = threading.Barrier(8)

        def take_and_free(_: int) -> None:
            together.wait(30)
            for _ in range(200):
                rate_limiter.reserve()
                rate_limiter.update(None)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(take_and_free, range(8)))
        rate_limiter.reserve()
        rate_limiter.update(headers(60, 13))
        assert [rate_limiter.reserve(), rate_limiter.reserve()] == pytest.approx([0, 1])


class TestBulkReads:
    async def test_a_bulk_read_gets_no_429_and_leaves_the_reserve(
        self, transport: Transport
    ) -> None:
        shops = {"northpeak": 24}
        with Sandbox(
            catalogs=shops, api_key=KEY, requests_per_minute=600, generation="seed"
        ) as sandbox:
            async with open_client(
                sandbox, transport, rate_limiter=RateLimiter(reserve=0.99)
            ) as client:
                pages = [page async for page in client.iter_pages(catalog="northpeak", limit=2)]
            async with httpx.AsyncClient(base_url=sandbox.base_url) as probe:
                left = (await probe.get("/catalogs")).headers["x-ratelimit-remaining"]
            assert len(pages) == 12
            assert [request.status for request in sandbox.requests[:-1]] == [200] * 12
        assert client.statistics.rate_limit_wait_seconds > 0
        assert int(left) >= 0.99 * 600 - 2, "whole tokens, and the last request is on its way"

    async def test_the_client_waits_as_the_limiter_says(self, waits: Waits) -> None:
        clock = Clock()
        rate_limiter = RateLimiter(reserve=0.5, clock=clock)
        shops = {"northpeak": 8}
        with Sandbox(
            catalogs=shops, api_key=KEY, requests_per_minute=10, generation="seed"
        ) as sandbox:
            async with open_client(sandbox, rate_limiter=rate_limiter, waits=waits) as client:
                pages = [page async for page in client.iter_pages(limit=1)]
            assert len(pages) == 8
            assert [request.status for request in sandbox.requests] == [200] * 8
        # 10 in the bucket, 5 in reserve: five requests go at once, and each further one, which
        # takes no time here, takes the bucket one token of 6 seconds deeper into the reserve.
        assert waits == pytest.approx([6, 12, 18], abs=0.1)
        assert client.statistics.rate_limit_wait_seconds == pytest.approx(36, abs=0.3)

    async def test_a_single_page_is_not_limited(self, waits: Waits) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=0)
        with Sandbox(catalogs=1, products=3, api_key=KEY, generation="seed") as sandbox:
            async with open_client(sandbox, rate_limiter=rate_limiter, waits=waits) as client:
                await client.search_products()
                await client.list_catalogs()
        assert waits == []

    async def test_the_headers_of_an_error_count_too(self, waits: Waits) -> None:
        clock = Clock()
        rate_limiter = RateLimiter(reserve=0.5, clock=clock)
        with Sandbox(
            catalogs=1, products=3, api_key=KEY, requests_per_minute=60, generation="seed"
        ) as sandbox:
            sandbox.inject(Fault("status", 500))
            async with open_client(sandbox, rate_limiter=rate_limiter, waits=waits) as client:
                with pytest.raises(OctogenServerError):
                    _ = [page async for page in client.iter_pages()]
        assert rate_limiter.reserve() == 0
        assert [rate_limiter.reserve() for _ in range(30)][-1] == pytest.approx(1)
        assert waits == []


class TestInFlight:
    async def test_a_refusal_halves_and_a_hundred_successes_add_one(self) -> None:
        in_flight = InFlight()
        assert in_flight.limit == float("inf")
        await refused(in_flight, 8)
        assert in_flight.limit == 4
        await refused(in_flight, 4)
        assert in_flight.limit == 2
        await refused(in_flight, 1)
        assert in_flight.limit == 1
        for number in range(250):
            assert in_flight.limit == 1 + number // 100
            async with in_flight.turn(asyncio.sleep):
                pass

    async def test_another_error_changes_nothing(self) -> None:
        in_flight = InFlight()
        for detail in ("rate_limit_exceeded", None, {"code": "rate_limit_exceeded"}):
            with pytest.raises(OctogenRateLimitError):
                async with in_flight.turn(asyncio.sleep):
                    raise rate_limit_error(detail)
        assert in_flight.limit == float("inf")

    async def test_requests_take_turns_in_the_order_in_which_they_came(self) -> None:
        in_flight = InFlight()
        await refused(in_flight, 2)
        began: list[int] = []

        async def request(number: int) -> None:
            async with in_flight.turn(asyncio.sleep):
                began.append(number)
                await asyncio.sleep(0)

        waiting = [asyncio.create_task(request(number)) for number in range(5)]
        await asyncio.sleep(0)
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert began == [0, 1, 3, 4]


async def refused(in_flight: InFlight, requests: int) -> None:
    """Send some requests at once, which are refused together."""
    sent: list[None] = []
    all_are_sent = asyncio.Event()

    async def send() -> None:
        with contextlib.suppress(OctogenRateLimitError):
            async with in_flight.turn(asyncio.sleep):
                sent.append(None)
                if len(sent) == requests:
                    all_are_sent.set()
                await all_are_sent.wait()
                raise rate_limit_error("concurrency_limit_exceeded")

    await asyncio.gather(*(send() for _ in range(requests)))


def rate_limit_error(detail: object) -> OctogenRateLimitError:
    return OctogenRateLimitError("Too many.", httpx.Response(429), detail)
