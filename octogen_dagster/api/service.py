"""Service: the settings and the state that all requests with one key to one address share."""

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
    # Tells Octogen batch reads from shoppers. ASCII JSON of at most 4,096 bytes.
    "X-Octogen-Request-Context": '{"trigger":"background","application":"octogen-dagster"}',
}
"""The headers of every request, besides the API key and what is accepted compressed."""
Generation = Literal["seed", "current"]
_LOGGER = logging.getLogger(__name__)


class ServiceLog(OnceLog):
    """Says why requests wait. A copy or pickle begins anew, in the log of this module."""

    rate_limit_wait = 0.0  # the seconds of all requests so far

    def __reduce__(self) -> Any:
        return type(self), (_LOGGER.warning,)


class Refused(dict[str, frozenset[str]]):
    """The fields that the service refuses, by operation, once an answer showed which.

    `learning` has the future of the first request of each that is to show it. A copy or pickle
    begins anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.learning: dict[str, Future[None]] = {}

    def __reduce__(self) -> tuple[type[Refused], tuple[()]]:
        return type(self), ()


class IdleConnections(deque[Any]):
    """Connections that the next requests go over. A copy or pickle has none."""

    def __reduce__(self) -> Any:
        return type(self), ()


@dataclass(frozen=True)
class Service:
    """One service, as it is reached with one key.

    `timeout` are seconds for one attempt, from connecting to the last byte of the response, and
    `phase_timeout` for each phase of it. No request outlives `ends_at`, a time of `clock`.
    Threads share an instance; a pickle has no key, which is looked up in the environment when it is
    read.
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
            raise TypeError("api_key must be an ApiKey, which keeps the key out of sight")
        object.__setattr__(self, "base_url", checked_base_url(self.base_url, self.api_key.masked))
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout}")

    @property
    def generation(self) -> Generation:
        """The contract's generation that the service speaks, "seed" until it shows otherwise."""
        return "current" if "catalog" in self.refused.get("search", ()) else "seed"

    def within(self, seconds: float) -> Self:
        """Return the same service, all of whose requests must end within some seconds."""
        return replace(self, ends_at=min(self.ends_at, self.clock() + seconds))

    def with_log(self, warn: Callable[[str], None]) -> Self:
        """Return the same service, which says anew why requests wait."""
        return replace(self, log=ServiceLog(warn))

    def keeping_connections(self) -> Self:
        """Return the same service, whose connections stay open from one read to the next."""
        return replace(self, idle=IdleConnections())

    def for_execution(self, warn: Callable[[str], None]) -> Self:
        """Return the same service with a log and a count of costs of its own."""
        return replace(self.with_log(warn), spending=self.spending.part())
