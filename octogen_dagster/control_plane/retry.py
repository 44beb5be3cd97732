"""Retries of calls to Octogen's MCP and to its token endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
)

if TYPE_CHECKING:
    import tenacity

DEFAULT_TIMEOUT = 30.0
"""Seconds for one request."""

DEFAULT_RETRY = RetryPolicy(attempts=5, deadline=120.0, max_delay=10.0)


def retrying(policy: RetryPolicy, *, repeatable: bool = True) -> tenacity.Retrying:
    """Return the loop that makes one call, with its retries.

    Args:
        policy: The number of attempts, the delays, and the deadline after which no attempt and no
            wait begins.
        repeatable: True if the call may reach the service twice. If not, only a call that the
            service refused for its rate limit is retried, because it was not carried out.
    """
    import tenacity

    def may_retry(error: BaseException) -> bool:
        if isinstance(error, OctogenMCPRateLimitError):
            return error.retry_after is not None
        if isinstance(error, OctogenMCPError):
            return repeatable and error.retry_after is not None
        return repeatable and isinstance(error, OctogenConnectionError)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_retry),
        wait=policy.wait,
        stop=tenacity.stop_after_attempt(policy.attempts)
        | tenacity.stop_before_delay(policy.deadline),
        reraise=True,
    )
