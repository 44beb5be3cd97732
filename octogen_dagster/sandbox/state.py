"""The sandbox's state: catalogs, URL lists, limits, faults and the request log."""

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
    """The rate limit, as a token bucket for one minute. At first, the bucket is full."""

    def __init__(self, requests_per_minute: int) -> None:
        if requests_per_minute < 1:
            raise ValueError(f"requests_per_minute must be 1 or more, not {requests_per_minute}")
        self.size = requests_per_minute
        self._per_second = requests_per_minute / 60
        self._tokens = float(requests_per_minute)
        self._counted_at = time.monotonic()
        self._lock = Lock()

    def take(self) -> bool:
        """Take a token, or return False if the bucket is empty."""
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
        """Whole seconds until the next token, at least 1."""
        return max(1, math.ceil((1 - self._available()) / self._per_second))

    def _available(self) -> float:
        gained = (time.monotonic() - self._counted_at) * self._per_second
        return min(float(self.size), self._tokens + gained)


class Account:
    """The charged costs and prepaid credit; None means unlimited credit."""

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
        """Charge for a request. If the credit is insufficient, charge nothing and return False."""
        with self._lock:
            is_covered = self.balance_usd >= usd
            self._charged_usd += usd if is_covered else 0
            return is_covered


@dataclass
class ReceivedRequest:
    """A request to the REST API."""

    method: str  # in capitals
    path: str  # below the base URL, such as `/products/search`
    body: dict[str, Any] | None  # the JSON object, if any
    request_id: str  # the response's `x-request-id`
    page: int  # the search page, counted from 1; 1 for other requests
    faults: tuple[FaultKind, ...]  # the kinds of faults that hit it
    status: int | None = None  # the response status; None until it is sent


@dataclass
class State:
    """A sandbox's state. Any thread can change it."""

    api_key: str
    catalogs: Catalogs
    url_lists: UrlLists
    limiter: TokenBucket
    account: Account
    faults: ActiveFaults
    shop_routes: Sequence[str] = ()
    log: deque[ReceivedRequest] = field(default_factory=lambda: deque(maxlen=_MAX_LOGGED_REQUESTS))
    closing: Future[None] = field(default_factory=Future)
    """A future that is done when the server stops. It ends injected latency immediately."""
