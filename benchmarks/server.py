"""The server of the benchmarks: pre-built pages over HTTP/1.1, as fast as asyncio can.

`python -m benchmarks.server '{"generation": ..., "catalogs": {key: products}, "delay": seconds,
"listed": number}'` prints its port and runs until its standard input is closed.
"""

import asyncio
import json
import re
import sys
import uuid

from benchmarks.pages import CatalogPages
from benchmarks.source import PAGE_SIZE, Generation
from octogen_dagster.sandbox.data.catalog import make_catalog
from octogen_dagster.sandbox.rest.request_bodies import (
    SEARCH_REQUESTS,
    RefusedBodyError,
    parse_body,
)
from octogen_dagster.sandbox.rest.views import catalog_summary

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REASONS = {200: "OK", 404: "Not Found", 422: "Unprocessable Entity"}


class Service:
    """The responses of one generation of the contract.

    Args:
        generation: The contract.
        catalogs: Catalog key to number of products.
        listed: The number of additional catalogs, which are listed and have no pages.
    """

    def __init__(self, generation: Generation, catalogs: dict[str, int], listed: int) -> None:
        self.pages = {key: CatalogPages(key, count, generation) for key, count in catalogs.items()}
        summaries = [pages.summary for pages in self.pages.values()]
        for number in range(listed):
            summaries.append(catalog_summary(make_catalog(f"listed-{number:05}", 1, seed=1)))
        self._listing = json.dumps(summaries).encode()
        self._pages_served = 0
        self._generation = generation
        self._search_request = SEARCH_REQUESTS[generation]

    def respond(self, operation: bytes, body: bytes) -> bytes:
        """Return a whole HTTP response.

        Args:
            operation: The method and the path.
            body: The request body.
        """
        if operation == b"POST /v1/products/search":
            return self._search(body)
        if operation == b"GET /v1/catalogs" and self._generation == "seed":
            return _response(200, str(uuid.uuid4()), self._listing)
        if operation == b"GET /v1/pages-served":
            return _json_response(200, self._pages_served)
        return _json_response(404, {"detail": "Not Found"})

    def _search(self, body: bytes) -> bytes:
        try:
            request = parse_body(self._search_request, body)
        except RefusedBodyError as error:
            return _json_response(422, {"detail": error.problems})
        keys = request.catalog_keys or list(self.pages)
        if len(keys) != 1 or request.limit != PAGE_SIZE:
            return _json_response(422, {"detail": f"one catalog and pages of {PAGE_SIZE} only"})
        pages = self.pages.get(keys[0])
        if pages is None:
            return _json_response(404, {"detail": "catalog_not_found"})
        number = pages.number(request.cursor)
        self._pages_served += 1
        return _response(200, pages.request_ids[number], *pages.body(number))


def _json_response(status: int, content: object) -> bytes:
    return _response(status, str(uuid.uuid4()), json.dumps(content).encode())


def _response(status: int, request_id: str, *body: bytes | bytearray) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {sum(map(len, body))}\r\n"
        f"x-request-id: {request_id}\r\n"
        "X-RateLimit-Limit: 600000000\r\n"
        "X-RateLimit-Remaining: 600000000\r\n"
        "X-RateLimit-Reset: 1800000000\r\n"
        "\r\n"
    )
    return b"".join((head.encode(), *body))


class Connection(asyncio.Protocol):
    """A connection, which is kept alive.

    Args:
        service: The service.
        delay: The time to wait before each response, in seconds.
    """

    def __init__(self, service: Service, delay: float) -> None:
        self._service = service
        self._delay = delay
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        length = int(match[1]) if (match := _LENGTH.search(head)) else 0
        if not found or len(rest) < length:
            return
        self._received = b""  # no contender sends a request before the last response
        operation = head[: head.index(b" HTTP/1.1\r\n")]
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._respond, operation, rest)
        else:
            self._respond(operation, rest)

    def _respond(self, operation: bytes, body: bytes) -> None:
        assert self._transport is not None
        self._transport.write(self._service.respond(operation, body))


async def _serve(service: Service, delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service, delay), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    page_bytes = next(iter(service.pages.values())).mean_bytes
    print(json.dumps({"port": port, "page_bytes": page_bytes}), flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin, closed.set)
    await closed.wait()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    service = Service(settings["generation"], settings["catalogs"], settings["listed"])
    asyncio.run(_serve(service, settings["delay"]))
