"""RateLimiter: how long a bulk read must wait, from the `X-RateLimit-*` headers. No I/O.

The service's limiter is a token bucket that holds one minute of requests and is shared by the
whole organisation.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from octogen_dagster.api.response_headers import rate_limit, rate_limit_remaining

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class RateLimiter:
    """Limits bulk reads so that they never spend the organisation's bucket below a reserve.

    Requests go at once while the bucket is above the reserve, then at the rate at which it
    refills. Clients and threads may share one limiter: each request takes its own place in line.

    Args:
        reserve: Share of the bucket, from 0 to below 1, that is left to other users.
        clock: Monotonic seconds.

    Raises:
        ValueError: The reserve is out of its range.
    """

    def __init__(
        self, reserve: float = 0.2, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not 0 <= reserve < 1:
            raise ValueError(f"reserve must be from 0 to below 1, not {reserve}")
        self.reserved_share = reserve
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float("inf")
        self._tokens_per_second = 0.0
        self._refilled_at = 0.0
        self._pending = 0

    @property
    def requests_per_minute(self) -> float:
        """The organisation's rate limit; 0 as long as no response has told it."""
        return self._tokens_per_second * 60

    def reserve(self) -> float:
        """Take the next place in line and return the seconds to wait before sending.

        Each call must be followed by one call of `update`.
        """
        with self._lock:
            self._refill()
            self._pending += 1
            self._tokens -= 1
            if not self._tokens_per_second:
                return 0.0
            return max(0.0, -self._tokens / self._tokens_per_second)

    def update(self, headers: Mapping[str, str] | None) -> None:
        """Give the place back and learn the level of the bucket.

        Args:
            headers: The headers of the response, or None if there was no response.
        """
        with self._lock:
            self._pending -= 1
            if headers is None:
                return
            limit, remaining = rate_limit(headers), rate_limit_remaining(headers)
            if limit is None or remaining is None:
                return
            remaining = min(max(remaining, 0.0), limit)
            self._tokens_per_second = limit / 60
            self._tokens = remaining - self.reserved_share * limit - self._pending
            self._refilled_at = self._clock()

    def _refill(self) -> None:
        now = self._clock()
        self._tokens += (now - self._refilled_at) * self._tokens_per_second
        self._refilled_at = now
