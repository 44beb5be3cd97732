"""The organisation's rate limit: a token bucket that holds one minute of requests."""

import math
import time
from collections.abc import Callable
from threading import Lock


class TokenBucket:
    """A bucket of `requests_per_minute` tokens that starts full and refills in a minute.

    Args:
        requests_per_minute: The size, at least 1.
        clock: Returns seconds that never go back.

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
        """Take a token; return False if there is none."""
        with self._lock:
            self._refill()
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    @property
    def remaining(self) -> int:
        """The number of whole tokens."""
        with self._lock:
            self._refill()
            return int(self._tokens)

    @property
    def seconds_to_full(self) -> float:
        """The time until the bucket is full, in seconds."""
        with self._lock:
            self._refill()
            return (self.size - self._tokens) / self._per_second

    @property
    def retry_after(self) -> int:
        """The time until there is a token, in whole seconds, at least 1."""
        with self._lock:
            self._refill()
            return max(1, math.ceil((1 - self._tokens) / self._per_second))

    def _refill(self) -> None:
        now = self._clock()
        gained = (now - self._counted_at) * self._per_second
        self._tokens = min(float(self.size), self._tokens + gained)
        self._counted_at = now
