"""The rate of requests, and the number of them at once. No I/O.

`RateLimiter` follows the `X-RateLimit-*` headers: the service's limiter is a token bucket that
holds one minute of requests and is shared by the whole organisation. `InFlight` follows the
service's refusals of too many requests at once.
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


class Turn(NamedTuple):
    """The halvings of the limit and the requests in flight when a request was sent.

    `is_late` if some of these were sent before the last halving.
    """

    halvings: int
    in_flight: int
    is_late: bool


class InFlight:
    """Limits how many requests are in flight, once the service has refused so many at once.

    A refusal halves the limit, and each hundred successful responses raise it by one, up to what
    `cap` has set. `limit` is infinite as long as no request was refused and nothing was set.
    Threads share an instance.
    """

    SUCCESSES_PER_STEP = 100

    def __init__(self) -> None:
        self.limit = self._most = float("inf")
        self._lock = threading.Lock()
        self._line: deque[Future[Turn]] = deque()
        self._in_flight = 0
        self._halvings = 0
        self._before_halving = 0  # in flight, and sent before the last halving
        self._successes = 0

    def cap(self, most: int) -> None:
        """Let no more requests be in flight than these."""
        with self._lock:
            self._most = most
            self.limit = min(self.limit, most)

    def enter(self) -> Future[Turn]:
        """Return the turn of a request, which is done at once unless too many are in flight.

        Requests that wait are sent in their order. Each turn ends with `leave` or `give_up`.
        """
        turn: Future[Turn] = Future()
        with self._lock:
            self._line.append(turn)
            self._let_in()
        return turn

    def give_up(self, turn: Future[Turn]) -> None:
        """Leave the line, or end a turn in which no request was sent."""
        if not turn.cancel():
            self.leave(turn.result(), refused=False, succeeded=False)

    def leave(self, turn: Turn, *, refused: bool, succeeded: bool) -> None:
        """Note that a request is over; it is `refused` if the service refuses so many at once."""
        with self._lock:
            at_once = max(turn.in_flight, self._in_flight)
            self._in_flight -= 1
            is_before_halving = turn.halvings < self._halvings
            self._before_halving -= is_before_halving
            if succeeded:
                self._successes += 1
                if self._successes >= self.SUCCESSES_PER_STEP:
                    self._successes = 0
                    self.limit = min(self.limit + 1, self._most)
            # Requests that are in flight together are refused together, which counts once. So does
            # one that was sent while others from before the halving were still in flight.
            elif refused and not (is_before_halving or turn.is_late):
                # A limit far above what was in flight would hold nothing back if it were halved.
                self.limit = max(1, min(self.limit, at_once) // 2)
                self._halvings += 1
                self._before_halving = self._in_flight
                self._successes = 0
            self._let_in()

    def _let_in(self) -> None:
        while self._line and self._in_flight < self.limit:
            turn = self._line.popleft()
            if turn.set_running_or_notify_cancel():  # it did not give up
                self._in_flight += 1
                turn.set_result(Turn(self._halvings, self._in_flight, self._before_halving > 0))


class RateLimiter:
    """Limits bulk reads so that they never spend the organisation's bucket below a reserve.

    Requests go at once while the bucket is above the reserve, a share from 0 to below 1, then at
    the rate at which it refills. Clients and threads may share one limiter: each request takes a
    turn of its own.
    """

    def __init__(
        self, reserved_percent: float = 20, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        require_percent("reserved_percent", reserved_percent)
        if reserved_percent == 100:
            raise ValueError("reserved_percent must be below 100, or no request is sent")
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
        """The organisation's rate limit; 0 as long as no response has told it."""
        return self._tokens_per_second * 60

    def take_turn(self, within: float = float("inf")) -> float | None:
        """Take the next turn and return the seconds to wait for it; None if these are too many.

        Each turn that was taken must be followed by one call of `update`.
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
            # It may go below zero: each turn then waits for those that were taken before it.
            self._tokens -= 1
            return seconds

    def update(self, headers: Mapping[str, str] | None) -> None:
        """End a turn, and learn the level of the bucket unless there was no response."""
        with self._lock:
            self._pending -= 1
            if headers is None:
                return
            limit, remaining = rate_limit(headers), rate_limit_remaining(headers)
            if limit is None or remaining is None:
                return
            remaining = min(max(remaining, 0.0), limit)
            self._tokens_per_second = limit / 60
            # Requests under way may reach the service after it answered: their tokens are gone.
            self._tokens = remaining - self.reserved_percent / 100 * limit - self._pending
            self._refilled_at = self._clock()
