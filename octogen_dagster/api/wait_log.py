"""WaitLog: says once why a read waits or repeats requests."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenRateLimitError,
    OctogenServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from octogen_dagster.api.pacing import RateLimiter
    from octogen_dagster.api.retry import RetryPolicy

LONG_WAIT = 5.0
"""Seconds that a read waits in all for the rate limit, or once after an error, without a word."""
_LOGGER = logging.getLogger(__name__)
_RETRIED = (OctogenConnectionError, OctogenRateLimitError, OctogenServerError)


class WaitLog:
    """Logs the first long wait of a read for each of its reasons.

    A request that got no complete response is logged at once: its address may be wrong. Threads may
    share an instance. A copy or pickle begins anew, and logs by `logging`.

    Args:
        warn: Called with a line.
    """

    def __init__(self, warn: Callable[[str], None] = _LOGGER.warning) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._told: set[object] = set()
        self._rate_limit_wait = 0.0

    def __reduce__(self) -> tuple[type[WaitLog], tuple[()]]:
        return type(self), ()

    def wait_for_rate_limit(self, seconds: float, limiter: RateLimiter) -> None:
        """Note that a request waits until the rate limiter lets it go."""
        with self._lock:
            self._rate_limit_wait += seconds
            is_long = self._rate_limit_wait >= LONG_WAIT
        if is_long and self._is_new("pacing"):
            self._warn(
                f"Requests wait for the organisation's rate limit of "
                f"{limiter.requests_per_minute:g} a minute, of which {limiter.reserved_share:.0%} "
                f"are left to others: the next one is sent in {seconds:.1f} s. Further waits are "
                "not logged. Ask Octogen for a higher limit if this takes too long."
            )

    def wait_after(self, error: OctogenError, seconds: float, retry: RetryPolicy) -> None:
        """Note that a request is repeated after an error, and when."""
        kind = next(kind for kind in _RETRIED if isinstance(error, kind))
        if (kind is OctogenConnectionError or seconds >= LONG_WAIT) and self._is_new(kind):
            self._warn(
                f"{error} The request is repeated in {seconds:.1f} s, and given up after "
                f"{retry.deadline:g} s at the latest. Further repetitions are not logged."
            )

    def fewer_at_once(self, limit: float) -> None:
        """Note that the service refuses so many requests at once."""
        if self._is_new("in flight"):
            self._warn(
                "The service refuses so many requests at once (429 concurrency_limit_exceeded): at "
                f"most {limit:g} are in flight from now on, and slowly more. Further refusals are "
                "not logged. Lower `concurrency`, or run fewer reads at once, to avoid them."
            )

    def _is_new(self, reason: object) -> bool:
        with self._lock:
            is_new = reason not in self._told
            self._told.add(reason)
        return is_new
