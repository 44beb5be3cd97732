"""Service: the settings and state for all requests with one API key to one base URL."""

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
"""Headers for every request, in addition to `Authorization` and `Accept-Encoding`."""
Generation = Literal["seed", "current"]
_LOGGER = logging.getLogger(__name__)


class ServiceLog(OnceLog):
    """Logs why requests wait. Copies and pickles start empty and use this module's logger."""

    rate_limit_wait = 0.0  # total seconds for all requests

    def __reduce__(self) -> Any:
        return type(self), (_LOGGER.warning,)


class Refused(dict[str, frozenset[str]]):
    """Maps each operation to the request fields that the service has rejected.

    `learning` maps each operation to a future that is done after the first request. Copies and
    pickles start empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.learning: dict[str, Future[None]] = {}

    def __reduce__(self) -> tuple[type[Refused], tuple[()]]:
        return type(self), ()


class IdleConnections(deque[Any]):
    """Open connections that later requests can reuse. Copies and pickles start empty."""

    def __reduce__(self) -> Any:
        return type(self), ()


@dataclass(frozen=True)
class Service:
    """The settings and state for requests to a service with one API key.

    `timeout` limits one attempt, from connecting to the last byte of the response. `phase_timeout`
    limits each phase of an attempt. Both are in seconds. All requests end by `ends_at`, a time on
    `clock`. Instances are thread-safe. A pickle does not contain the API key. Unpickling reads the
    key from the environment.
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
            raise ValueError(f"`timeout` must be greater than 0 seconds; got {self.timeout}.")

    @property
    def generation(self) -> Generation:
        """The service's API contract: "seed" (the older contract) or "current".

        The value is "seed" until a response shows that the service has the current contract.
        """
        return "current" if "catalog" in self.refused.get("search", ()) else "seed"

    def within(self, seconds: float) -> Self:
        """Return a copy of the service whose requests must all end within `seconds` seconds."""
        return replace(self, ends_at=min(self.ends_at, self.clock() + seconds))

    def with_log(self, warn: Callable[[str], None]) -> Self:
        """Return a copy of the service that logs waits with `warn`."""
        return replace(self, log=ServiceLog(warn))

    def keeping_connections(self) -> Self:
        """Return a copy of the service that keeps connections open between reads."""
        return replace(self, idle=IdleConnections())

    def for_execution(self, warn: Callable[[str], None]) -> Self:
        """Return a copy of the service with a separate log and separate costs."""
        return replace(self.with_log(warn), spending=self.spending.part())
