"""What a sandbox keeps between requests: catalogs, URL lists, limits, faults and the log."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from octogen_dagster.sandbox.catalog import Catalogs
from octogen_dagster.sandbox.faults import ActiveFaults, FaultKind
from octogen_dagster.sandbox.url_lists import UrlLists

_MAX_LOGGED_REQUESTS = 20_000


class TokenBucket:
    """The rate limit: a bucket with tokens for one minute, which starts full."""

    def __init__(self, requests_per_minute: int) -> None:
        if requests_per_minute < 1:
            raise ValueError(f"requests_per_minute must be 1 or more, not {requests_per_minute}")
        self.size = requests_per_minute
        self._per_second = requests_per_minute / 60
        self._tokens = float(requests_per_minute)
        self._counted_at = time.monotonic()
        self._lock = Lock()

    def take(self) -> bool:
        """Take a token; return False if there is none."""
        with self._lock:
            tokens = self._available()
            if tokens >= 1:
                self._tokens, self._counted_at = tokens - 1, time.monotonic()
            return tokens >= 1

    @property
    def remaining(self) -> int:
        """The number of whole tokens."""
        return int(self._available())

    @property
    def seconds_to_full(self) -> float:
        return (self.size - self._available()) / self._per_second

    @property
    def retry_after(self) -> int:
        """The time until there is a token, in whole seconds, at least 1."""
        return max(1, math.ceil((1 - self._available()) / self._per_second))

    def _available(self) -> float:
        gained = (time.monotonic() - self._counted_at) * self._per_second
        return min(float(self.size), self._tokens + gained)


class Account:
    """The costs of requests, and the credit that pays them; None for an endless one."""

    def __init__(self, credit_usd: float | None) -> None:
        if credit_usd is not None and not credit_usd >= 0:
            raise ValueError(f"credit_usd must be 0 or more, not {credit_usd}")
        self._credit_usd = math.inf if credit_usd is None else credit_usd
        self._charged_usd = 0.0
        self._lock = Lock()

    @property
    def charged_usd(self) -> float:
        return round(self._charged_usd, 6)

    @property
    def balance_usd(self) -> float:
        return round(self._credit_usd - self._charged_usd, 6)

    def charge(self, usd: float) -> bool:
        """Charge a request; return False, without a charge, if there is not enough credit."""
        with self._lock:
            is_covered = self.balance_usd >= usd
            self._charged_usd += usd if is_covered else 0
            return is_covered


@dataclass
class ReceivedRequest:
    """A request to the REST API."""

    method: str  # in capitals
    path: str  # below the base URL, such as `/products/search`
    body: dict[str, Any] | None  # the JSON object; None if there was none
    request_id: str  # the `x-request-id` of the response
    page: int  # of a search, counted from 1; 1 for any other request
    faults: tuple[FaultKind, ...]  # that hit it, by their kinds
    status: int | None = None  # of the response; None until there is one


@dataclass
class State:
    """The state of a sandbox. It may be changed from any thread."""

    api_key: str
    catalogs: Catalogs
    url_lists: UrlLists
    limiter: TokenBucket
    account: Account
    faults: ActiveFaults
    shop_routes: Sequence[str] = ()
    log: deque[ReceivedRequest] = field(default_factory=lambda: deque(maxlen=_MAX_LOGGED_REQUESTS))
    closing: Future[None] = field(default_factory=Future)
    """Done when the server stops, so that latency ends at once."""
