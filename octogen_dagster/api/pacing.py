"""Limits for the request rate and for concurrent requests. No I/O.

`RateLimiter` follows the `X-RateLimit-*` headers. The service uses one token bucket for the whole
organization. The bucket holds one minute's requests. `InFlight` reduces concurrency when the
service rejects concurrent requests.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from octogen_dagster.api.http import rate_limit, rate_limit_remaining
from octogen_dagster.validation import require_percent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Slot(NamedTuple):
    """A slot for one concurrent request, and the limit's state when the slot was granted.

    `is_late` is true if requests from before the last halving were still in flight.
    """

    halvings: int
    in_flight: int
    is_late: bool


class InFlight:
    """An adaptive limit for concurrent requests.

    A rejection halves the limit. Every 100 successful responses raise the limit by one, up to the
    value set with `cap`. `limit` is infinite until a request is rejected or `cap` is called.
    Instances are thread-safe.
    """

    SUCCESSES_PER_STEP = 100

    def __init__(self) -> None:
        self.limit = self._most = float("inf")
        self._lock = threading.Lock()
        self._line: deque[Future[Slot]] = deque()
        self._in_flight = 0
        self._halvings = 0
        self._before_halving = 0  # requests in flight that were sent before the last halving
        self._successes = 0

    def cap(self, most: int) -> None:
        """Set the maximum number of concurrent requests."""
        with self._lock:
            self._most = most
            self.limit = min(self.limit, most)

    def enter(self) -> Future[Slot]:
        """Return a future that completes when the request can be sent.

        Waiting requests are sent in order. The caller must call `leave` or `give_up` afterwards.
        """
        slot: Future[Slot] = Future()
        with self._lock:
            self._line.append(slot)
            self._let_in()
        return slot

    def give_up(self, slot: Future[Slot]) -> None:
        """Stop waiting for a slot, or release the slot if the request already has one."""
        if not slot.cancel():
            self.leave(slot.result(), throttled=False, succeeded=False)

    def leave(self, slot: Slot, *, throttled: bool, succeeded: bool) -> None:
        """Record that a request ended.

        `throttled` is true if the service rejected the request because too many were in flight.
        """
        with self._lock:
            at_once = max(slot.in_flight, self._in_flight)
            self._in_flight -= 1
            is_before_halving = slot.halvings < self._halvings
            self._before_halving -= is_before_halving
            if succeeded:
                self._successes += 1
                if self._successes >= self.SUCCESSES_PER_STEP:
                    self._successes = 0
                    self.limit = min(self.limit + 1, self._most)
            # Requests in flight together are rejected together. Such rejections halve the limit
            # once. This includes a request that was sent while others from before the halving were
            # still in flight.
            elif throttled and not (is_before_halving or slot.is_late):
                # Halving a limit far above the requests in flight would have no effect.
                self.limit = max(1, min(self.limit, at_once) // 2)
                self._halvings += 1
                self._before_halving = self._in_flight
                self._successes = 0
            self._let_in()

    def _let_in(self) -> None:
        while self._line and self._in_flight < self.limit:
            slot = self._line.popleft()
            if slot.set_running_or_notify_cancel():  # False if the request gave up its slot
                self._in_flight += 1
                slot.set_result(Slot(self._halvings, self._in_flight, self._before_halving > 0))


class RateLimiter:
    """A limiter for bulk reads that leaves part of the rate limit for other clients.

    While the token bucket is above the reserve, requests are sent immediately. Below the reserve,
    requests are sent at the bucket's refill rate. Clients and threads can share a limiter.

    Args:
        reserved_percent: The percentage of the organization's rate limit to leave for other
            clients, from 0 to less than 100.
    """

    def __init__(
        self, reserved_percent: float = 20, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        require_percent("reserved_percent", reserved_percent)
        if reserved_percent == 100:
            raise ValueError(
                "reserved_percent must be less than 100. At 100, no request could be sent."
            )
        self.reserved_percent = reserved_percent
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float("inf")
        self._tokens_per_second = 0.0
        self._refilled_at = 0.0
        self._pending = 0
        self.in_flight = InFlight()

    def __reduce__(self) -> tuple[type[RateLimiter], tuple[float]]:
        return type(self), (self.reserved_percent,)

    @property
    def requests_per_minute(self) -> float:
        """The organization's rate limit, or 0 until a response reports it."""
        return self._tokens_per_second * 60

    def reserve(self, within: float = float("inf")) -> float | None:
        """Reserve one request. Return the seconds to wait before the request can be sent.

        If the wait would exceed `within`, nothing is reserved and the result is None. Call `update`
        once after each reserved request.
        """
        with self._lock:
            now = self._clock()
            self._tokens += (now - self._refilled_at) * self._tokens_per_second
            self._refilled_at = now
            seconds = 0.0
            if self._tokens_per_second:
                seconds = max(0.0, (1 - self._tokens) / self._tokens_per_second)
            if seconds > within:
                return None
            self._pending += 1
            # A negative balance makes each request wait for the requests before it.
            self._tokens -= 1
            return seconds

    def update(self, headers: Mapping[str, str] | None) -> None:
        """Record that a reserved request ended, and apply the rate limit from the response."""
        with self._lock:
            self._pending -= 1
            if headers is None:
                return
            limit, remaining = rate_limit(headers), rate_limit_remaining(headers)
            if limit is None or remaining is None:
                return
            remaining = min(max(remaining, 0.0), limit)
            self._tokens_per_second = limit / 60
            # Pending requests might not be counted in `remaining` yet.
            self._tokens = remaining - self.reserved_percent / 100 * limit - self._pending
            self._refilled_at = self._clock()
