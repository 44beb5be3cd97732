"""How fast requests are sent by the headers of the responses, and how many at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.api.pacing import InFlight, RateLimiter
from tests.api.clients import Clock


def headers(limit: object, remaining: object) -> dict[str, str]:
    return {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": str(remaining)}


def limiter_at(limit: int, remaining: int, reserve: float = 20) -> tuple[RateLimiter, Clock]:
    """A rate limiter that has just learned what is left in the bucket."""
    clock = Clock()
    rate_limiter = RateLimiter(reserve, clock=clock)
    rate_limiter.reserve()
    rate_limiter.update(headers(limit, remaining))
    return rate_limiter, clock


class TestReserve:
    def test_at_the_reserve_the_delays_grow_at_the_rate_of_refill(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=12)
        assert [rate_limiter.reserve() for _ in range(4)] == pytest.approx([1, 2, 3, 4])

    def test_a_wait_longer_than_within_reserves_nothing(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=12)
        assert rate_limiter.reserve(within=0.9) is None
        assert rate_limiter.reserve(within=1.1) == pytest.approx(1)

    def test_pending_requests_are_subtracted_from_the_header(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=60)
        for _ in range(3):
            rate_limiter.reserve()
        rate_limiter.update(headers(60, 14))
        assert rate_limiter.reserve() == pytest.approx(1), "14 - 12 in reserve - 2 pending"

    @pytest.mark.parametrize(
        "odd",
        [{"x-ratelimit-limit": "120"}, {"x-ratelimit-remaining": "0"}, headers("many", "nan")],
    )
    def test_invalid_headers_change_nothing(self, odd: dict[str, str]) -> None:
        rate_limiter, clock = limiter_at(limit=60, remaining=12)
        clock.now += 1
        rate_limiter.reserve()
        rate_limiter.update(odd)
        assert rate_limiter.reserve() == pytest.approx(1)

    @given(
        limit=st.integers(1, 10_000),
        reserve=st.floats(1, 99),
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
            clock.now += rate_limiter.reserve() or 0
            tokens = min(limit, tokens + (clock.now - filled_at) * per_second) - 1
            filled_at = clock.now
            # The header is in whole tokens; the first request is sent before any is known.
            assert tokens >= min(reserve * limit / 100, limit - 1) - 1 - 1e-6
            rate_limiter.update(headers(limit, int(tokens)))


class TestThreads:
    def test_each_request_is_reserved_once(self) -> None:
        rate_limiter, _ = limiter_at(limit=60, remaining=12)
        together = threading.Barrier(8)

        def take(_: int) -> list[float]:
            together.wait(30)
            return [rate_limiter.reserve() or 0 for _ in range(200)]

        with ThreadPoolExecutor(8) as threads:
            delays = sorted(delay for taken in threads.map(take, range(8)) for delay in taken)
        assert delays == pytest.approx([float(place) for place in range(1, 1601)])


class TestInFlight:
    def test_a_refusal_halves_and_a_hundred_successes_add_one(self) -> None:
        in_flight = InFlight()
        assert in_flight.limit == float("inf")
        for at_once, limit in ((8, 4), (4, 2), (1, 1)):
            refuse_together(in_flight, at_once)
            assert in_flight.limit == limit
        for number in range(250):
            assert in_flight.limit == 1 + number // 100
            slot = in_flight.enter().result(0)
            in_flight.leave(slot, throttled=False, succeeded=True)

    def test_no_more_than_the_limit_are_in_flight(self) -> None:
        in_flight = InFlight()
        refuse_together(in_flight, 4)
        slots = [in_flight.enter().result(0) for _ in range(2)]
        gone, late, later = (in_flight.enter() for _ in range(3))
        assert not any(each.done() for each in (gone, late, later))
        in_flight.give_up(gone)
        in_flight.leave(slots[0], throttled=False, succeeded=False)
        assert late.done()
        assert not later.done(), "it came later"
        in_flight.give_up(late)
        assert later.done()


def refuse_together(in_flight: InFlight, requests: int) -> None:
    slots = [in_flight.enter().result(0) for _ in range(requests)]
    for slot in slots:
        in_flight.leave(slot, throttled=True, succeeded=False)
