from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.api.http import Response
from octogen_dagster.api.responses import error_from_response
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenConnectionError,
    OctogenError,
    OctogenPagingError,
    OctogenResponseError,
    OctogenShopError,
    OctogenTimeoutError,
)


def failure(status: int, retry_after: str | None = None, detail: str | None = None) -> OctogenError:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    response = Response(status, headers, json.dumps({"detail": detail}).encode())
    return error_from_response(response, "It")


def state_after(attempt: int, error: Exception) -> tenacity.RetryCallState:
    """tenacity's state when attempt number `attempt` has failed."""
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    return state


class Operation:
    """Fails with each error in turn, then succeeds; counts attempts and records waits."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0
        self.waits: list[float] = []

    async def __call__(self) -> str:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def run(self, policy: RetryPolicy, elapsed: float = 0) -> str:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        result: str = await policy.retrying(elapsed, sleep=sleep)(self)
        return result


class TestMayRetry:
    @pytest.mark.parametrize(
        "error",
        [
            failure(429),
            failure(500),
            failure(502),
            failure(503, "120"),
            failure(599),
            OctogenConnectionError("cut"),
            OctogenTimeoutError("late"),
        ],
    )
    def test_a_missing_response_429_and_5xx_may_be_retried(self, error: OctogenError) -> None:
        assert RetryPolicy().may_retry(error)

    @pytest.mark.parametrize(
        "error",
        [
            *(failure(status, "1") for status in (307, 400, 401, 402, 403, 404, 409, 422)),
            OctogenResponseError("It is a web page", httpx.Response(200)),
            OctogenPagingError("loop"),
            MissingAPIKeyError(),
            ValueError("limit"),
            ConnectionResetError(),
        ],
    )
    def test_nothing_else_may_be_retried(self, error: Exception) -> None:
        assert not RetryPolicy().may_retry(error)

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_retry_after_above_the_maximum_is_not_retried(self, status: int) -> None:
        policy = RetryPolicy(max_retry_after=10)
        assert policy.may_retry(failure(status, "10"))
        assert not policy.may_retry(failure(status, "11"))
        assert not policy.may_retry(failure(status, "9" * 400))


class TestWait:
    @given(
        attempt=st.integers(1, 60),
        first=st.floats(0.001, 10),
        longest=st.floats(0.001, 100),
        asked=st.integers(0, 1000),
    )
    def test_it_is_retry_after_plus_a_delay_that_doubles_up_to_a_maximum(
        self, attempt: int, first: float, longest: float, asked: int
    ) -> None:
        policy = RetryPolicy(first_delay=first, max_delay=longest)
        own = policy.wait(state_after(attempt, failure(503, str(asked)))) - asked
        step = first * 2.0 ** (attempt - 1)
        assert min(step, longest) - 1e-6 <= own <= min(step + first, longest) + 1e-6

    def test_the_jitter_differs_from_call_to_call(self) -> None:
        policy = RetryPolicy()
        assert len({policy.wait(state_after(1, failure(503))) for _ in range(20)}) > 10

    def test_without_retry_after_it_is_the_delay_alone(self) -> None:
        policy = RetryPolicy(first_delay=1)
        assert 1 <= policy.wait(state_after(1, OctogenConnectionError("cut"))) <= 2

    async def test_it_grows_from_attempt_to_attempt(self) -> None:
        operation = Operation(*[failure(503)] * 4)
        assert await operation.run(RetryPolicy(first_delay=1)) == "done"
        first, second, third, fourth = operation.waits
        assert 1 <= first <= 2 <= second <= 3 < 4 <= third <= 5 < 8 <= fourth <= 9


class TestStop:
    @pytest.mark.parametrize("attempts", [1, 2, 5])
    async def test_the_last_failure_is_raised_after_the_last_attempt(self, attempts: int) -> None:
        operation = Operation(*[failure(503) for _ in range(9)])
        last = operation.errors[attempts - 1]
        with pytest.raises(OctogenError) as caught:
            await operation.run(RetryPolicy(attempts=attempts))
        assert caught.value is last
        assert operation.attempts == attempts
        assert len(operation.waits) == attempts - 1

    async def test_a_429_does_not_count_as_an_attempt(self) -> None:
        operation = Operation(*[failure(429) for _ in range(9)], failure(503))
        assert await operation.run(RetryPolicy(attempts=2)) == "done"
        assert operation.attempts == 11

    @pytest.mark.parametrize(("attempts", "sent"), [(1, 1), (2, 2), (6, 2)])
    async def test_a_lookup_whose_shop_failed_is_sent_once_more_at_most(
        self, attempts: int, sent: int
    ) -> None:
        operation = Operation(*[failure(504, detail="product_lookup_timed_out")] * 9)
        with pytest.raises(OctogenShopError):
            await operation.run(RetryPolicy(attempts=attempts))
        assert operation.attempts == sent

    async def test_without_retries_a_429_is_final(self) -> None:
        operation = Operation(failure(429))
        with pytest.raises(OctogenError, match="429"):
            await operation.run(RetryPolicy(attempts=1))
        assert operation.attempts == 1

    async def test_an_error_that_may_not_be_retried_is_raised_at_once(self) -> None:
        operation = Operation(failure(422))
        with pytest.raises(OctogenError, match="422"):
            await operation.run(RetryPolicy())
        assert (operation.attempts, operation.waits) == (1, [])

    async def test_a_wait_beyond_the_deadline_does_not_begin(self) -> None:
        operation = Operation(failure(503, "60"))
        with pytest.raises(OctogenError, match="503"):
            await operation.run(RetryPolicy(deadline=50, max_retry_after=100))
        assert (operation.attempts, operation.waits) == (1, [])

    async def test_the_elapsed_time_counts(self) -> None:
        operation = Operation(failure(503, "30"), failure(503, "30"))
        policy = RetryPolicy(deadline=50, first_delay=0.1)
        with pytest.raises(OctogenError, match="503"):
            await operation.run(policy, elapsed=25)
        assert (operation.attempts, operation.waits) == (1, [])


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"attempts": 0}, "attempts must be at least 1, not 0"),
            ({"deadline": 0}, "deadline must be above 0 seconds, not 0"),
            ({"first_delay": -1}, "first_delay must be above 0 seconds, not -1"),
            ({"max_delay": float("nan")}, "max_delay must be above 0 seconds, not nan"),
            ({"max_retry_after": 0.0}, "max_retry_after must be above 0 seconds, not 0.0"),
        ],
    )
    def test_a_setting_out_of_its_range_is_named(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            RetryPolicy(**settings)

    def test_equality_and_repr_are_those_of_the_settings(self) -> None:
        assert RetryPolicy(attempts=2) == RetryPolicy(attempts=2) != RetryPolicy(attempts=3)
        assert "tenacity" not in repr(RetryPolicy())
