"""How fast a bulk read may go by the `X-RateLimit-*` headers. No I/O: the client does the waiting.

The limiter is a token bucket of one minute of requests, shared by the whole organisation.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class RateLimiter:
    """Spends the organisation's bucket only down to a reserve, and then at the rate it refills.

    Many clients and threads may share one: each request takes its own place in the queue.

    Args:
        reserve: Share of the bucket, 0 to below 1, that is left to everyone else.
        clock: Monotonic seconds.
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
        self._per_second = 0.0
        self._seen_at = 0.0
        self._unanswered = 0

    def reserve(self) -> float:
        """Take the next place; seconds to wait before sending. `update` must follow."""
        with self._lock:
            self._refill()
            self._unanswered += 1
            self._tokens -= 1
            return max(0.0, -self._tokens / self._per_second) if self._per_second else 0.0

    def update(self, headers: Mapping[str, str] | None) -> None:
        """Learn the bucket's level from an answer's headers, or free the place if none came."""
        with self._lock:
            self._unanswered -= 1
            try:
                limit = float((headers or {})["x-ratelimit-limit"])
                remaining = float((headers or {})["x-ratelimit-remaining"])
            except (KeyError, ValueError):
                return
            if not 1 <= limit < float("inf"):
                return
            remaining = min(max(remaining, 0.0), limit)
            self._per_second = limit / 60
            self._tokens = remaining - self.reserved_share * limit - self._unanswered
            self._seen_at = self._clock()

    def _refill(self) -> None:
        now = self._clock()
        self._tokens += (now - self._seen_at) * self._per_second
        self._seen_at = now
