"""Which failures of Octogen's MCP and token endpoint are tried again, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.api.errors import (
    OctogenConnectionError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
)
from octogen_dagster.api.retry import RetryPolicy

if TYPE_CHECKING:
    import tenacity

POLICY = RetryPolicy(attempts=5, max_delay=10.0)
DEFAULT_DEADLINE = 120.0
"""Seconds for one call with all its tries."""


def retrying(deadline: float, *, repeatable: bool = True) -> tenacity.Retrying:
    """The loop for one call.

    Args:
        deadline: Seconds after which no further try is begun; a longer wait is not begun either.
        repeatable: Whether the call may reach the service twice; if not, only a call that the
            service says it did not carry out is tried again.
    """
    import tenacity

    def may_retry(error: BaseException) -> bool:
        if not (repeatable or isinstance(error, OctogenMCPRateLimitError)):
            return False
        if isinstance(error, OctogenMCPError):
            return error.retry_after is not None
        return isinstance(error, OctogenConnectionError)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_retry),
        wait=POLICY.wait,
        stop=tenacity.stop_after_attempt(POLICY.attempts) | tenacity.stop_before_delay(deadline),
        reraise=True,
    )
