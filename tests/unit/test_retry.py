"""Which failures of a request are followed by another attempt, and after which wait."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.api.http import Response
from octogen_dagster.api.responses import error_from_response
from octogen_dagster.api.retry import Retries, RetryPolicy
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenPagingError,
    OctogenResponseError,
    OctogenShopError,
    OctogenTimeoutError,
)


def failure(status: int, retry_after: str | None = None, detail: str | None = None) -> OctogenError:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return error_from_response(
        Response(status, headers, json.dumps({"detail": detail}).encode()), "It"
    )


def attempts(policy: RetryPolicy, *errors: OctogenError) -> int:
    """The attempts of a request that fails with each error in turn, the last one for ever."""
    retries, number = Retries(policy), 1
    while retries.wait_after(errors[min(number, len(errors)) - 1]) is not None and number < 50:
        number += 1
    return number


PASSING = [failure(429), failure(500), failure(503, "120"), failure(599)]
PASSING += [OctogenConnectionError("cut"), OctogenTimeoutError("late")]
LASTING = [failure(status, "1") for status in (307, 400, 401, 402, 403, 404, 409, 422)]
LASTING += [OctogenResponseError("a web page", httpx.Response(200)), OctogenPagingError("loop")]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_missing_response_429_and_5xx_are_retried(error: OctogenError) -> None:
    assert Retries(RetryPolicy()).wait_after(error) is not None
    assert Retries(RetryPolicy(attempts=1)).wait_after(error) is None


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_nothing_else_is_retried(error: OctogenError) -> None:
    assert Retries(RetryPolicy()).wait_after(error) is None


@pytest.mark.parametrize(
    ("errors", "count"),
    [
        ([failure(503)], 3),
        ([OctogenConnectionError("cut")], 3),
        ([failure(429)], 50),
        ([failure(503), failure(429), failure(429), failure(503), failure(503)], 5),
        ([failure(429), failure(401)], 2),
        ([failure(502, detail="product_lookup_failed")], 2),
    ],
    ids=["503", "cut", "429 for ever", "429 between", "another error", "shop"],
)
def test_a_429_costs_no_attempt_and_a_shop_gets_two(errors: list[OctogenError], count: int) -> None:
    assert isinstance(failure(502, detail="product_lookup_failed"), OctogenShopError)
    assert attempts(RetryPolicy(attempts=3), *errors) == count


@given(
    failures=st.integers(1, 2000),
    first=st.floats(0.001, 10),
    longest=st.floats(0.001, 100),
    asked=st.integers(0, 120),
)
def test_the_wait_is_retry_after_plus_a_delay_that_doubles_up_to_a_maximum(
    failures: int, first: float, longest: float, asked: int
) -> None:
    policy = RetryPolicy(attempts=10_000, first_delay=first, max_delay=longest)
    step = first * 2.0 ** min(failures - 1, 60)
    assert min(step, longest) - 1e-6 <= policy.delay(failures) <= min(step + first, longest) + 1e-6
    wait = Retries(policy).wait_after(failure(503, str(asked)))
    assert wait is not None
    assert asked + min(first, longest) - 1e-6 <= wait <= asked + min(2 * first, longest) + 1e-6
