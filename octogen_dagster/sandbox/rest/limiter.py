"""The organisation's rate limit: a token bucket that holds one minute of requests."""

import math
import time
from collections.abc import Callable
from threading import Lock


class TokenBucket:
    """Starts full with `requests_per_minute` tokens and refills to that in a minute.

    Args:
        requests_per_minute: At least 1.
        clock: Seconds that only go forward.

    Raises:
        ValueError: `requests_per_minute` is below 1.
    """

    def __init__(
        self, requests_per_minute: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if requests_per_minute < 1:
            raise ValueError(f"requests_per_minute must be 1 or more, not {requests_per_minute}")
        self.size = requests_per_minute
        self._per_second = requests_per_minute / 60
        self._clock = clock
        self._tokens = float(requests_per_minute)
        self._counted_at = clock()
        self._lock = Lock()

    def take(self) -> bool:
        """Spend one token; False when there is none."""
        with self._lock:
            self._refill()
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    @property
    def remaining(self) -> int:
        """Whole tokens left."""
        with self._lock:
            self._refill()
            return int(self._tokens)

    @property
    def seconds_to_full(self) -> float:
        with self._lock:
            self._refill()
            return (self.size - self._tokens) / self._per_second

    @property
    def retry_after(self) -> int:
        """Whole seconds until there is a token again, at least 1."""
        with self._lock:
            self._refill()
            return max(1, math.ceil((1 - self._tokens) / self._per_second))

    def _refill(self) -> None:
        now = self._clock()
        gained = (now - self._counted_at) * self._per_second
        self._tokens = min(float(self.size), self._tokens + gained)
        self._counted_at = now
