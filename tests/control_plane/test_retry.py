from __future__ import annotations

import pytest

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.control_plane.retry import DEFAULT_RETRY, with_retries
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from tests.control_plane.servers import QUICK

TIMED_OUT = OctogenTimeoutError("no answer")
SPENT = OctogenMCPRateLimitError("spent", retry_after=0.0)
FAILED = OctogenMCPError("failed", retry_after=0.0)
REFUSED = OctogenMCPError("refused")
UNAUTHORIZED = OctogenMCPAuthenticationError("refused")


def attempts(error: Exception, policy: RetryPolicy = QUICK, *, repeatable: bool = True) -> int:
    """How often a call is made that always fails with the error."""
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(type(error)) as caught:
        with_retries(call, policy, repeatable=repeatable)
    assert caught.value is error
    return calls


@pytest.mark.parametrize(
    "error", [OctogenConnectionError("reset"), TIMED_OUT, SPENT, FAILED], ids=str
)
def test_a_failure_that_may_pass_is_retried(error: OctogenError) -> None:
    assert attempts(error) == QUICK.attempts == 3


@pytest.mark.parametrize("error", [REFUSED, UNAUTHORIZED, ValueError("defect")], ids=str)
def test_any_other_failure_is_not_retried(error: Exception) -> None:
    assert attempts(error) == 1


@pytest.mark.parametrize(
    ("error", "calls"), [(TIMED_OUT, 1), (FAILED, 1), (REFUSED, 1), (SPENT, 3)], ids=str
)
def test_a_call_that_must_not_be_repeated_is_retried_only_after_a_rate_limit(
    error: OctogenError, calls: int
) -> None:
    assert attempts(error, repeatable=False) == calls


def test_a_wait_beyond_the_deadline_does_not_begin() -> None:
    policy = RetryPolicy(attempts=3, deadline=60.0)
    assert attempts(OctogenMCPRateLimitError("spent", retry_after=61.0), policy) == 1


def test_a_call_that_succeeds_returns_its_value() -> None:
    assert with_retries(lambda: 5, DEFAULT_RETRY) == 5
