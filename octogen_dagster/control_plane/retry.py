"""Retries of calls to Octogen's MCP and to its token endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
)

_Value = TypeVar("_Value")

DEFAULT_TIMEOUT = 30.0
"""Seconds for one request."""

DEFAULT_RETRY = RetryPolicy(attempts=5, deadline=120.0, max_delay=10.0)


def with_retries(
    call: Callable[[], _Value], policy: RetryPolicy, *, repeatable: bool = True
) -> _Value:
    """Make a call, and again while it fails in a way that may pass.

    Args:
        call: Makes the call.
        policy: The number of attempts, the delays, and the deadline after which no attempt and no
            wait begins.
        repeatable: True if the call may reach the service twice. If not, only a call that the
            service refused for its rate limit is retried, because it was not carried out.
    """
    ends_at = time.monotonic() + policy.deadline
    failures = 0
    while True:
        try:
            return call()
        except (OctogenMCPError, OctogenConnectionError) as error:
            failures += 1
            asked = error.retry_after if isinstance(error, OctogenMCPError) else 0.0
            is_carried_out = not isinstance(error, OctogenMCPRateLimitError)
            if asked is None or (is_carried_out and not repeatable) or failures >= policy.attempts:
                raise
            seconds = asked + policy.delay(failures)
            if time.monotonic() + seconds > ends_at:
                raise
        time.sleep(seconds)
