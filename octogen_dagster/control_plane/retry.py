"""Which failures of Octogen's MCP and token endpoint are tried again, and how."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
)

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


def finite_seconds(value: object) -> float | None:
    """The seconds that a field of an answer gives; None when it is no finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None
