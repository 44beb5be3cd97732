"""RetryPolicy: which failures are retried and after which waits. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import tenacity

from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenShopError,
)

_ATTEMPTS_OF_A_SHOP = 2

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How one request to the service is retried.

    The service's contract fixes what may be retried: a missing or incomplete response, 429 and
    5xx. A lookup whose shop failed is sent once more at most.

    Args:
        attempts: Attempts of one request; 1 turns retries off. Attempts that were refused with
            429 do not count: only the deadline ends them.
        deadline: Seconds for one request with all its retries and waits.
        first_delay: Seconds before the first retry, plus jitter; each later delay doubles.
        max_delay: Longest delay in seconds, not counting what the service asks for.
        max_retry_after: Longest `Retry-After` in seconds that is waited for. The error is raised
            at once if the service asks for more.

    Raises:
        ValueError: A setting is out of its range.
    """

    attempts: int = 6
    deadline: float = 300.0
    first_delay: float = 0.5
    max_delay: float = 30.0
    max_retry_after: float = 120.0
    _backoff: tenacity.wait_exponential_jitter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        for name in ("deadline", "first_delay", "max_delay", "max_retry_after"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, not {getattr(self, name)}")
        backoff = tenacity.wait_exponential_jitter(
            multiplier=self.first_delay, max=self.max_delay, jitter=self.first_delay
        )
        object.__setattr__(self, "_backoff", backoff)

    def may_retry(self, error: BaseException) -> bool:
        """True if the service's contract allows to send the same request again."""
        if isinstance(error, OctogenRateLimitError | OctogenServerError):
            return (error.retry_after or 0) <= self.max_retry_after
        return isinstance(error, OctogenConnectionError)

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next attempt: the service's `Retry-After` plus the own delay."""
        error = state.outcome.exception() if state.outcome else None
        return (getattr(error, "retry_after", None) or 0.0) + self._backoff(state)

    def retrying(
        self,
        elapsed: float = 0.0,
        *,
        sleep: Sleep = asyncio.sleep,
        before_sleep: Callable[[tenacity.RetryCallState], None] | None = None,
    ) -> tenacity.AsyncRetrying:
        """Make the loop that applies this policy to one request.

        Args:
            elapsed: Seconds since the request was first sent; they count towards the deadline.
            sleep: Waits between attempts.
            before_sleep: Called before each wait.
        """
        rate_limited = 0
        exceeds_deadline = tenacity.stop_before_delay(self.deadline - elapsed)

        def must_stop(state: tenacity.RetryCallState) -> bool:
            nonlocal rate_limited
            error = state.outcome.exception() if state.outcome else None
            rate_limited += self.attempts > 1 and isinstance(error, OctogenRateLimitError)
            counted = state.attempt_number - rate_limited
            is_shop = isinstance(error, OctogenShopError)
            attempts = min(self.attempts, _ATTEMPTS_OF_A_SHOP) if is_shop else self.attempts
            return counted >= attempts or exceeds_deadline(state)

        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self.may_retry),
            wait=self.wait,
            stop=must_stop,
            sleep=sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
