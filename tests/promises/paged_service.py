"""A service of catalogs with numbered products, whose answers are plain bytes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.api.servers import POLL_SECONDS, RawServer, Received, http


class TokenBucket:
    """A rate limit: it holds the requests of a minute, and refills steadily.

    Attributes:
        is_crowded: True while others of the organization leave only a fifth of what it holds.
        asked: The number of requests.
        refused: How many of them came while it was empty.
    """

    def __init__(self, requests_per_minute: int) -> None:
        self._size = self._tokens = float(requests_per_minute)
        self._filled_at = time.monotonic()
        self._lock = threading.Lock()
        self.asked = self.refused = 0
        self.is_crowded = False

    def take(self) -> tuple[bool, dict[str, Any]]:
        """Take the token of a request; return if there was one, and the headers about the rest."""
        with self._lock:
            now = time.monotonic()
            refilled = self._tokens + (now - self._filled_at) * self._size / 60
            size = self._size / 5 if self.is_crowded else self._size
            self._tokens, self._filled_at = min(size, refilled), now
            self.asked += 1
            has_token = self._tokens >= 1
            if has_token:
                self._tokens -= 1
            else:
                self.refused += 1
            return has_token, {
                "x_ratelimit_limit": f"{self._size:.0f}",
                "x_ratelimit_remaining": f"{int(self._tokens)}",
            }


@dataclass
class PagedService:
    """Serves catalogs and pages of their products, and remembers the searches.

    Attributes:
        catalogs: The number of products of each catalog.
        counts: How many products the list of catalogs says, where that is not the true number.
        indexed_at: When the list says that a catalog was indexed, where that is another time.
        lists: How often the list was requested.
        change: Changes the products of a page before they are sent.
        last_page: Pages after this one are held back until `release` is called; None for none.
        limit: The rate limit of all requests together; None for none.
        searches: The catalog and the page number of each search, in order.
        base_url: The address.
        api_key: A key that it takes.
    """

    catalogs: dict[str, int]
    counts: dict[str, int] = field(default_factory=dict)
    indexed_at: dict[str, str | None] = field(default_factory=dict)
    lists: int = 0
    change: Callable[[str, int, list[dict[str, Any]]], None] = lambda _key, _page, _products: None
    last_page: int | None = None
    limit: TokenBucket | None = None
    searches: list[tuple[str, int]] = field(default_factory=list)
    base_url: str = ""
    api_key: str = RawServer.api_key
    _released: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[PagedService]:
        """Serve on a free port while the block runs."""
        with RawServer(self._respond) as server:
            self.base_url = server.base_url
            try:
                yield self
            finally:
                self.release()

    def release(self) -> None:
        """Send the pages that are held back."""
        self._released.set()

    def pages_of(self, catalog: str) -> list[int]:
        """The pages of a catalog that were requested, in order."""
        return [number for key, number in self.searches if key == catalog]

    def _respond(self, request: Received) -> list[bytes]:
        has_token, headers = self.limit.take() if self.limit else (True, {})
        if not has_token:
            return http(429, {"detail": "rate_limit_exceeded"}, retry_after="1", **headers)
        if request.target == "/v1/catalogs":
            self.lists += 1
            return http(200, [self._state(key) for key in self.catalogs], **headers)
        body = json.loads(request.body)
        if request.target != "/v1/products/search" or body.get("catalog") not in self.catalogs:
            return http(404, {"detail": "Not Found"})
        page = self._page(body["catalog"], body.get("cursor"), body.get("limit", 50))
        return http(200, page, **headers)

    def _state(self, key: str) -> dict[str, Any]:
        return {
            "catalog": key,
            "displayName": key,
            "sourceBaseUrl": None,
            "productCount": self.counts.get(key, self.catalogs[key]),
            "lastIndexedAt": self.indexed_at.get(key, "2026-11-26T04:00:00Z"),
        }

    def _page(self, key: str, cursor: str | None, limit: int) -> dict[str, Any]:
        begin = int(cursor or 0)
        number = begin // limit + 1
        self.searches.append((key, number))
        if self.last_page is not None and number > self.last_page:
            self._released.wait(POLL_SECONDS)
        end = min(begin + limit, self.catalogs[key])
        products = [
            {
                "uuid": f"{key}-{index}",
                "productUrl": f"https://{key}.example/{index}",
                "currentPrice": float(index % 100),
                "updatedAt": "2026-11-26T03:00:00Z",
            }
            for index in range(begin, end)
        ]
        self.change(key, number, products)
        return {"items": products, "nextCursor": str(end) if end < self.catalogs[key] else None}
