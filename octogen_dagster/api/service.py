"""Service: settings and state shared by all requests with one API key to one base URL."""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from octogen_dagster.api.credentials import ApiKey, checked_base_url, configured_base_url
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.spending import Spending
from octogen_dagster.printable import OnceLog

DEFAULT_TIMEOUT = 30.0
HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": f"octogen-dagster/{importlib.metadata.version('octogen-dagster')}",
    # Lets Octogen distinguish batch reads from shoppers. ASCII JSON, at most 4,096 bytes.
    "X-Octogen-Request-Context": '{"trigger":"background","application":"octogen-dagster"}',
}
"""Headers for every request, besides `Authorization` and `Accept-Encoding`."""
Generation = Literal["seed", "current"]
_LOGGER = logging.getLogger(__name__)


class ServiceLog(OnceLog):
    """Logs why requests wait. A copy or pickle is empty and uses this module's logger."""

    rate_limit_wait = 0.0  # total seconds for all requests

    def __reduce__(self) -> Any:
        return type(self), (_LOGGER.warning,)


class Refused(dict[str, frozenset[str]]):
    """The fields that the service rejects in each operation, learned from its responses.

    `learning` maps each operation to a future that its first request resolves. Copies and pickles
    start empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.learning: dict[str, Future[None]] = {}

    def __reduce__(self) -> tuple[type[Refused], tuple[()]]:
        return type(self), ()


class IdleConnections(deque[Any]):
    """Idle connections for the next requests. Copies and pickles of the queue are empty."""

    def __reduce__(self) -> Any:
        return type(self), ()


@dataclass(frozen=True)
class Service:
    """A service accessed with one API key.

    `timeout` is in seconds and limits one attempt, from connecting to the last byte of the
    response; `phase_timeout` limits each phase of it. Requests end by `ends_at`, a time on `clock`.
    Instances are thread-safe. A pickle does not contain the key; unpickling reads it from the
    environment.
    """

    api_key: ApiKey = field(default_factory=ApiKey)
    base_url: str = field(default_factory=configured_base_url)
    timeout: float = DEFAULT_TIMEOUT
    phase_timeout: float = float("inf")
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    limiter: RateLimiter = field(default_factory=RateLimiter, compare=False)
    spending: Spending = field(default_factory=Spending, compare=False)
    ends_at: float = float("inf")
    refused: Refused = field(default_factory=Refused, compare=False, repr=False)
    log: ServiceLog = field(
        default_factory=lambda: ServiceLog(_LOGGER.warning), compare=False, repr=False
    )
    idle: IdleConnections | None = field(default=None, compare=False, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.api_key, ApiKey):
            raise TypeError("api_key must be an ApiKey, which keeps the key out of messages.")
        object.__setattr__(self, "base_url", checked_base_url(self.base_url, self.api_key.masked))
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout}.")

    @property
    def generation(self) -> Generation:
        """The service's API contract: "seed" (older) until a response indicates "current"."""
        return "current" if "catalog" in self.refused.get("search", ()) else "seed"

    def within(self, seconds: float) -> Self:
        """Return the service with a time limit in seconds for all its requests."""
        return replace(self, ends_at=min(self.ends_at, self.clock() + seconds))

    def with_log(self, warn: Callable[[str], None]) -> Self:
        """Return the service with a fresh log for waits."""
        return replace(self, log=ServiceLog(warn))

    def keeping_connections(self) -> Self:
        """Return a copy of the service that keeps connections open between reads."""
        return replace(self, idle=IdleConnections())

    def for_execution(self, warn: Callable[[str], None]) -> Self:
        """Return the service with a separate log and cost count."""
        return replace(self.with_log(warn), spending=self.spending.part())
