"""A service whose answers a test writes itself, for what no honest one would send."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy


@contextmanager
def service(answer: Callable[[dict[str, Any]], bytes]) -> Iterator[str]:
    """The base URL of a service that answers each search body with `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # it has no list of catalogs
            self.send_response(404)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            content = answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def page(*uuids: str, next_cursor: Any = None, **fields: Any) -> bytes:
    items = [
        {"uuid": uuid, "productUrl": f"https://shop.example/{uuid}", **fields} for uuid in uuids
    ]
    return json.dumps({"items": items, "nextCursor": next_cursor}).encode()


class ScriptedCatalog:
    """A catalog of numbered pages with two products each: p1 and q1, p2 and q2, ...

    Pass it to `service`. A test may change its pages.

    Args:
        last: The number of its last page.

    Attributes:
        contents: The pages by the cursor that leads to them.
        cursors: The cursors that were requested, in order.
    """

    def __init__(self, last: int = 4) -> None:
        self.last = last
        self.contents: dict[str | None, bytes] = {None: self.page(1)}
        self.contents |= {f"c{number}": self.page(number) for number in range(2, last + 1)}
        self.cursors: list[str | None] = []

    def __call__(self, body: dict[str, Any]) -> bytes:
        self.cursors.append(body.get("cursor"))
        return self.contents[body.get("cursor")]

    def cursor_after(self, number: int) -> str | None:
        return None if number == self.last else f"c{number + 1}"

    def page(self, number: int) -> bytes:
        return page(f"p{number}", f"q{number}", next_cursor=self.cursor_after(number))


def connection_at(base_url: str, **settings: Any) -> CatalogService:
    """A connection that retries nothing."""
    return CatalogService(
        api_key=ApiKey("octo_live_test"),
        base_url=base_url,
        retry=RetryPolicy(attempts=1),
        **settings,
    )
