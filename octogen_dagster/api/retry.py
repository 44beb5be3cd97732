"""RetryPolicy: which errors are retried, and the delays between attempts. No I/O."""

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

_SHOP_ATTEMPTS = 2
_MAX_DOUBLINGS = 60  # keeps the power within a float's range


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry settings for requests to the service.

    A request is retried if the response is missing or incomplete, or has the status 429 or 5xx. The
    API contract allows these retries. A lookup that fails because of the product's shop is retried
    at most once.

    Args:
        attempts: Maximum attempts per request; 1 disables retries. Attempts that end with 429 do
            not count and are limited only by the deadline.
        deadline: Maximum seconds for a request, including all retries and waits.
        first_delay: Seconds before the first retry, plus jitter. The delay doubles with each retry.
        max_delay: Maximum delay in seconds, not counting `Retry-After`.
        max_retry_after: Maximum `Retry-After` to wait for, in seconds. If the service requests a
            longer wait, the error is raised immediately.

    Raises:
        ValueError: A setting is out of range.
    """

    attempts: int = 6
    deadline: float = 300.0
    first_delay: float = 0.5
    max_delay: float = 30.0
    max_retry_after: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"`attempts` must be at least 1; got {self.attempts}.")
        for name in ("deadline", "first_delay", "max_delay", "max_retry_after"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} must be greater than 0 seconds; got {getattr(self, name)}."
                )

    def delay(self, failures: int) -> float:
        """Return the delay before the next attempt in seconds, not counting `Retry-After`."""
        backoff = self.first_delay * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
        jitter = random.uniform(0, self.first_delay)  # noqa: S311
        return min(backoff + jitter, self.max_delay)


class Retries:
    """Counts the failed attempts of one request and decides whether to retry it."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._counted = 0

    def wait_after(self, error: OctogenError) -> float | None:
        """Return the seconds before the next attempt, or None if the request is not retried."""
        policy = self._policy
        self._failures += 1
        if not (isinstance(error, OctogenRateLimitError) and policy.attempts > 1):
            self._counted += 1
        attempts = policy.attempts
        if isinstance(error, OctogenShopError):
            attempts = min(attempts, _SHOP_ATTEMPTS)
        if self._counted >= attempts:
            return None
        retry_after = 0.0
        if isinstance(error, OctogenRateLimitError | OctogenServerError):
            retry_after = error.retry_after or 0.0
            if retry_after > policy.max_retry_after:
                return None
        elif not isinstance(error, OctogenConnectionError):
            return None
        return retry_after + policy.delay(self._failures)
