"""How fast requests are sent, and how many at once. No I/O.

`RateLimiter` follows the `X-RateLimit-*` headers: the service's limiter is a token bucket that
holds one minute of requests and is shared by the whole organisation. `InFlight` follows the
service's refusals of too many requests at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from octogen_dagster.api.response_headers import rate_limit, rate_limit_remaining
from octogen_dagster.api.responses import is_concurrency_refusal
from octogen_dagster.errors import OctogenError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from octogen_dagster.api.retry import Sleep

_TURN_SECONDS = 0.01
"""How long a request waits for its turn before it looks again, for each place in line."""


class InFlight:
    """Limits how many requests are in flight, once the service has refused so many at once.

    A refusal halves the limit, and each hundred successful responses raise it by one. Clients and
    threads may share one; their requests take turns in the order in which they began to wait.

    Attributes:
        limit: The most requests in flight; infinite as long as none was refused.
    """

    SUCCESSES_PER_STEP = 100

    def __init__(self) -> None:
        self.limit = float("inf")
        self._lock = threading.Lock()
        self._in_flight = 0
        self._successes = 0
        self._halved = 0
        self._waiting: deque[object] = deque()

    @contextlib.asynccontextmanager
    async def turn(self, sleep: Sleep) -> AsyncIterator[None]:
        """Wait until a request may be sent, and count it while the block sends it."""
        ticket = object()
        try:
            while place := self._place(ticket):
                await sleep(place * _TURN_SECONDS)
        except BaseException:
            with self._lock:
                self._waiting.remove(ticket)
            raise
        halved, at_once = self._halved, self._in_flight
        try:
            yield
        except OctogenError as error:
            if is_concurrency_refusal(error):
                self._refused(halved, at_once)
            raise
        else:
            self._succeeded()
        finally:
            with self._lock:
                self._in_flight -= 1

    def _place(self, ticket: object) -> int:
        """Return the place of a request in line, from 1; 0 if it may be sent, and is counted."""
        with self._lock:
            if ticket not in self._waiting:
                self._waiting.append(ticket)
            if self._waiting[0] is not ticket or self._in_flight >= self.limit:
                return self._waiting.index(ticket) + 1
            self._waiting.popleft()
            self._in_flight += 1
            return 0

    def _refused(self, halved: int, at_once: int) -> None:
        with self._lock:
            # Requests that were in flight together are refused together, which counts once.
            if halved == self._halved:
                self.limit = max(1, min(self.limit, max(at_once, self._in_flight)) // 2)
                self._halved += 1
                self._successes = 0

    def _succeeded(self) -> None:
        with self._lock:
            self._successes += 1
            if self._successes >= self.SUCCESSES_PER_STEP:
                self._successes = 0
                self.limit += 1


class RateLimiter:
    """Limits bulk reads so that they never spend the organisation's bucket below a reserve.

    Requests go at once while the bucket is above the reserve, then at the rate at which it
    refills. Clients and threads may share one limiter: each request takes its own place in line.

    Args:
        reserve: Share of the bucket, from 0 to below 1, that is left to other users.
        clock: Monotonic seconds.

    Attributes:
        in_flight: Limits how many requests are in flight.

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
        self.in_flight = InFlight()

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
