"""RawServer: sends any bytes, for tests that the sandbox cannot serve."""

from __future__ import annotations

import json
import socketserver
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Semaphore, Thread
from typing import Any, Self
from urllib.parse import unquote

KEY = "octo_live_0123456789abcdef0123456789abcdef_dGhpcy1pcy1hLXNlY3JldA"
POLL_SECONDS = 300
"""A bound on what comes within milliseconds, on a busy machine too."""


@dataclass(frozen=True)
class Received:
    """A request as it was received; the names of its headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawServer:
    """Sends the parts of each response one by one, then closes the connection.

    Args:
        respond: Turns a request into the bytes to send.
        keep_alive: True to leave the connection open for further requests.
        certificate: A PEM file with a key and a certificate, to serve https.
    """

    api_key = KEY

    def __init__(
        self,
        respond: Callable[[Received], Iterable[bytes]],
        *,
        keep_alive: bool = False,
        certificate: str | None = None,
    ) -> None:
        self.respond = respond
        self.keep_alive = keep_alive
        self.received: list[Received] = []
        self.connections: list[object] = []
        self.closing = Event()
        self.closed_connections = Semaphore(0)
        self._server = _Server(self, certificate)
        self._scheme = "https" if certificate else "http"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def origin(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(POLL_SECONDS)

    def wait_for_closed_connection(self) -> None:
        assert self.closed_connections.acquire(timeout=POLL_SECONDS)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, owner: RawServer, certificate: str | None) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.owner.closed_connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: clients that disconnect or refuse the certificate are part of the tests."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        owner = self.server.owner
        owner.connections.append(self.client_address)
        while (request := self._read()) is not None:
            owner.received.append(request)
            for part in owner.respond(request):
                self.wfile.write(part)
            if not owner.keep_alive:
                return

    def _read(self) -> Received | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return None
            head += line
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        body = self.rfile.read(int(headers.get("content-length", 0)))
        return Received(method, target, headers, body)


def http(
    status: int = 200,
    body: bytes | str | dict[str, Any] | list[Any] = b"",
    *,
    length: int | None = None,
    **headers: str,
) -> list[bytes]:
    """A whole response.

    Args:
        status: The HTTP status.
        body: Bytes, HTML, or an object that is sent as JSON.
        length: A wrong `Content-Length`; by default, the right one is sent.
        headers: Further headers, with `_` for `-` in their names.
    """
    content_type = "text/html" if isinstance(body, str) else "application/json"
    if isinstance(body, dict | list):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    fields = {
        "content-type": content_type,
        "content-length": str(len(body) if length is None else length),
        "connection": "close",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return [f"HTTP/1.1 {status} Response\r\n{lines}\r\n".encode() + body]


def page(uuids: Iterable[str], next_cursor: str | None = None) -> dict[str, Any]:
    """A page of a search with only the required fields."""
    items = [{"uuid": uuid, "productUrl": f"https://shop.example/{uuid}"} for uuid in uuids]
    return {"items": items, "nextCursor": next_cursor}


def page_of(uuids: Sequence[str], search: Mapping[str, Any]) -> dict[str, Any]:
    """The page that a search asks for, whose cursor is the place of its first product."""
    begin = int(search.get("cursor") or 0)
    end = begin + search.get("limit", 50)
    return page(uuids[begin:end], str(end) if end < len(uuids) else None)


def counted(count: int, **others: int) -> dict[str, Any]:
    """An answer to a count as the published model has it: `contract/test_published_counts.py`.

    Args:
        count: The products of one category.
        others: Those of others, by their names.
    """
    categories = {"apparel & accessories": count} | others
    values = [{"value": name, "count": of_it} for name, of_it in categories.items()]
    return {
        "attributes": [],
        "categories": [],
        "facets": [{"name": "category_path.depth_0", "values": values}],
        "effectiveQuery": {"text": "", "understood": False, "facets": []},
    }


def catalog_of_shop(key: str, products: int = 3, **fields: Any) -> dict[str, Any]:
    """A catalog as `GET /domains/{host}` describes it."""
    return {
        "catalog": key,
        "catalogDisplayName": key.title(),
        "productCount": products,
        "computedAt": "2026-11-25T10:00:00Z",
        "fields": [],
        "price": None,
    } | fields


def shop(host: str, *catalogs: dict[str, Any]) -> list[bytes]:
    """The answer of a shop that catalogs serve."""
    return http(body={"host": host, "catalogs": list(catalogs)})


def not_covered() -> list[bytes]:
    return http(404, {"detail": "domain_not_covered"})


def unlisted(
    answer: Callable[[Received], Iterable[bytes]] = lambda _: http(500),
    shops: Mapping[str, list[bytes] | Callable[[Received], Iterable[bytes]]] | None = None,
    *,
    path: str = "/products/search",
    **options: Any,
) -> RawServer:
    """A service of the current generation, which has no list of catalogs.

    Args:
        answer: Answers the requests to `path`. What is neither that nor a shop is not there.
        shops: What it answers for each host, or a function that does so.
        path: The only operation, beside those about shops.
        options: Those of `RawServer`.
    """

    def respond(request: Received) -> Iterable[bytes]:
        target = request.target.removeprefix("/v1")
        if target == path:
            return answer(request)
        if not target.startswith("/domains/"):
            return http(404, {"detail": "Not Found"})
        found = (shops or {}).get(unquote(target.removeprefix("/domains/")), not_covered())
        return found(request) if callable(found) else found

    return RawServer(respond, **options)


def in_turn(*responses: list[bytes]) -> Callable[[Received], list[bytes]]:
    """Send each response once, and the last one to all further requests."""
    left = list(responses)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def hanging(server: Callable[[], RawServer]) -> Iterator[bytes]:
    """Send nothing until the server is closed."""
    server().closing.wait(POLL_SECONDS)
    yield b""


def dripping(server: Callable[[], RawServer]) -> Iterator[bytes]:
    """Send a body byte by byte until the server is closed."""
    yield http(length=1_000_000)[0]
    while not server().closing.wait(0.005):
        yield b" "
