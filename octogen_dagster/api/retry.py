"""Which failures may be retried and how long to wait. No I/O: the client does the waiting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tenacity

from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenRateLimitError,
    OctogenServerError,
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How one request to the service is retried.

    What may be retried is fixed by the service's contract: no answer or one cut off, 429 and 5xx.

    Args:
        attempts: Tries of one request in all, besides those that the rate limit refused, which
            only the deadline ends; 1 turns retries off.
        deadline: Seconds for one request with all its retries and waits.
        first_delay: Seconds before the first retry, about; each later wait doubles, with jitter.
        max_delay: Seconds that a wait of our own never exceeds.
        max_retry_after: Seconds that the service may ask us to wait. A longer request to wait is
            raised at once instead of being cut short.
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
        """Whether the service's contract allows to send the same request again."""
        if isinstance(error, OctogenRateLimitError | OctogenServerError):
            return (error.retry_after or 0) <= self.max_retry_after
        return isinstance(error, OctogenConnectionError)

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next try: what the service asked for, and a growing jittered delay."""
        error = state.outcome.exception() if state.outcome else None
        return (getattr(error, "retry_after", None) or 0.0) + self._backoff(state)

    def retrying(self, spent: float = 0.0, **callbacks: Any) -> tenacity.AsyncRetrying:
        """The loop that applies this policy to one request, `spent` seconds after it began."""
        refused = 0
        no_time_left = tenacity.stop_before_delay(self.deadline - spent)

        def is_over(state: tenacity.RetryCallState) -> bool:
            nonlocal refused
            error = state.outcome.exception() if state.outcome else None
            refused += self.attempts > 1 and isinstance(error, OctogenRateLimitError)
            return state.attempt_number - refused >= self.attempts or no_time_left(state)

        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self.may_retry),
            wait=self.wait,
            stop=is_over,
            reraise=True,
            **callbacks,
        )
