"""A service of catalogs with numbered products, whose answers are plain bytes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.api.servers import POLL_SECONDS, RawServer, Received, http


@dataclass
class PagedService:
    """Serves catalogs and pages of their products, and remembers the searches.

    Attributes:
        catalogs: The number of products of each catalog.
        counts: How many products the list of catalogs says, where that is not the true number.
        change: Changes the products of a page before they are sent.
        last_page: Pages after this one are held back until `release` is called; None for none.
        searches: The catalog and the page number of each search, in order.
        base_url: The address.
        api_key: A key that it takes.
    """

    catalogs: dict[str, int]
    counts: dict[str, int] = field(default_factory=dict)
    change: Callable[[str, int, list[dict[str, Any]]], None] = lambda _key, _page, _products: None
    last_page: int | None = None
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
        if request.target == "/v1/catalogs":
            return http(200, [self._state(key) for key in self.catalogs])
        body = json.loads(request.body)
        if request.target != "/v1/products/search" or body.get("catalog") not in self.catalogs:
            return http(404, {"detail": "Not Found"})
        return http(200, self._page(body["catalog"], body.get("cursor"), body.get("limit", 50)))

    def _state(self, key: str) -> dict[str, Any]:
        return {
            "catalog": key,
            "displayName": key,
            "sourceBaseUrl": None,
            "productCount": self.counts.get(key, self.catalogs[key]),
            "lastIndexedAt": "2026-11-26T04:00:00Z",
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
