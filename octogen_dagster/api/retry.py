"""RetryPolicy: which failures are retried and after which waits. No I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass

from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenShopError,
)

_ATTEMPTS_OF_A_SHOP = 2
_MAX_DOUBLINGS = 60  # more mean the same, and would not fit into a float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The rules by which a request to the service is retried.

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

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        for name in ("deadline", "first_delay", "max_delay", "max_retry_after"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, not {getattr(self, name)}")

    def delay(self, failures: int) -> float:
        """Seconds before the next attempt, besides what the service asks for."""
        backoff = self.first_delay * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
        jitter = random.uniform(0, self.first_delay)  # noqa: S311
        return min(backoff + jitter, self.max_delay)


class Retries:
    """The failures of one request so far."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._counted = 0

    def wait_after(self, error: OctogenError) -> float | None:
        """Return the seconds before the next attempt; None if there is none."""
        policy = self._policy
        self._failures += 1
        if not (isinstance(error, OctogenRateLimitError) and policy.attempts > 1):
            self._counted += 1
        attempts = policy.attempts
        if isinstance(error, OctogenShopError):
            attempts = min(attempts, _ATTEMPTS_OF_A_SHOP)
        if self._counted >= attempts:
            return None
        asked = 0.0
        if isinstance(error, OctogenRateLimitError | OctogenServerError):
            asked = error.retry_after or 0.0
            if asked > policy.max_retry_after:
                return None
        elif not isinstance(error, OctogenConnectionError):
            return None
        return asked + policy.delay(self._failures)
