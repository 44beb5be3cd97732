"""A service whose answers a test writes itself, for what no honest one would send."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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
