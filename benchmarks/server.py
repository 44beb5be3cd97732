"""The server of the benchmarks: pre-built pages over HTTP/1.1, as fast as asyncio can.

`python -m benchmarks.server '{"generation": ..., "catalogs": {key: [products, shape]}, "delay":
seconds, "listed": number, "lookups": false}'` prints its port and runs until its standard input is
closed. What it answers is made from the contract alone.
"""

import asyncio
import json
import re
import sys
import uuid
from typing import Any

from benchmarks.corpora import HOST
from benchmarks.details import full_views
from benchmarks.pages import EFFECTIVE_QUERY, Filters, Walk, make_catalogs
from benchmarks.source import PAGE_SIZE, WARM_UP, Generation

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_GZIP = re.compile(rb"\r\naccept-encoding:[^\r]*gzip", re.IGNORECASE)
_REASONS = {200: "OK", 201: "Created", 404: "Not Found", 422: "Unprocessable Entity"}
_CATEGORY = "category_path.depth_0"
_INDEXED_AT = "2026-11-01T04:00:00Z"
_URL_LISTS = "/v1/coverage/url-lists"
_SEARCH_FIELDS = {
    "seed": {"catalog", "cursor", "limit"},
    "current": {"catalogs", "facets", "exclude_facets", "cursor", "limit"},
}
_LOOKUP_FIELDS = {"seed": {"url"}, "current": {"url", "resolutionMode", "matchMode"}}

Response = tuple[int, str, list[bytes | bytearray], str]
"""The status, the request id, the body in parts and its encoding."""


class Service:
    """The responses of one generation of the contract.

    Args:
        generation: The contract.
        catalogs: Catalog key to its number of products and the name of its shape.
        listed: The number of additional catalogs, which are listed and have no pages.
        lookups: True if the products of the first catalog can be looked up.
    """

    def __init__(
        self,
        generation: Generation,
        catalogs: dict[str, tuple[int, str]],
        listed: int,
        lookups: bool,
    ) -> None:
        self._generation = generation
        self._catalogs = make_catalogs(catalogs, generation)
        counts = {key: catalog.products for key, catalog in self._catalogs.items()}
        summaries = [_summary(*entry) for entry in counts.items()]
        # Each was indexed at a time of its own, or a sensor's cursor would be next to nothing.
        summaries += [
            _summary(
                f"listed-{number:05}", 1, f"2026-10-{1 + number % 28:02}T04:00:{seconds:09.6f}Z"
            )
            for number, seconds in ((each, each * 7.919113 % 60) for each in range(listed))
        ]
        self._listing = json.dumps(summaries).encode()
        key, (products, _shape) = next(iter(catalogs.items()))
        self._views = full_views(key, products, generation) if lookups else {}
        self._counts = {"pages": 0, "lookups": 0, "refused": 0}
        self._url_lists: list[set[str]] = []

    def respond(self, operation: bytes, body: bytes, *, gzip_accepted: bool) -> Response:
        """Return the response to a request.

        Args:
            operation: The method and the path.
            body: The request body.
            gzip_accepted: True if the client reads gzip.
        """
        match operation:
            case b"POST /v1/products/search":
                return self._search(json.loads(body), gzip_accepted)
            case b"POST /v1/products/lookup":
                return self._lookup(json.loads(body))
            case b"GET /v1/catalogs" if self._generation == "seed":
                return 200, str(uuid.uuid4()), [self._listing], ""
            case b"POST /v1/products/facet-counts" if self._generation == "current":
                return self._count(json.loads(body))
            case b"GET /v1/counts":
                return _json_response(200, self._counts)
        if operation.startswith(b"GET /v1/domains/") and self._generation == "current":
            return _json_response(200, self._coverage())
        method, path = operation.decode().split(" ")
        if path.startswith(_URL_LISTS) and self._generation == "current":
            return self._of_url_lists(method, path.removeprefix(_URL_LISTS), body)
        return _json_response(404, {"detail": "Not Found"})

    @property
    def page_bytes(self) -> dict[str, int]:
        """The mean size of the pages of each catalog."""
        return {key: catalog.whole.mean_bytes for key, catalog in self._catalogs.items()}

    def _search(self, request: dict[str, Any], gzip_accepted: bool) -> Response:
        keys = request.get("catalogs") or [request.get("catalog")]
        if unknown := request.keys() - _SEARCH_FIELDS[self._generation]:
            self._counts["refused"] += keys != [WARM_UP]
            return self._refuse(unknown)
        if len(keys) != 1 or request.get("limit") != PAGE_SIZE:
            return self._refuse({"catalogs", "limit"})
        catalog = self._catalogs.get(keys[0])
        if catalog is None:
            return _json_response(404, {"detail": "catalog_not_found"})
        filters = _brand_filters(request)
        if filters is None:
            return self._refuse({"facets"})
        return self._page(catalog.walk(filters), request.get("cursor"), gzip_accepted)

    def _count(self, request: dict[str, Any]) -> Response:
        """Count the products of a search, which are all of one category."""
        filters = _brand_filters(request)
        if filters is None or request.get("facet_names") != [_CATEGORY]:
            return self._refuse({"facets", "facet_names"})
        catalogs = [self._catalogs[key] for key in request["catalogs"]]
        count = sum(catalog.number_of_products(filters) for catalog in catalogs)
        facet = {"name": _CATEGORY, "values": [{"value": "Clothing", "count": count}]}
        body = {"facets": [facet], "categories": [], "attributes": []}
        return _json_response(200, body | {"effectiveQuery": EFFECTIVE_QUERY})

    def _page(self, walk: Walk, cursor: str | None, gzip_accepted: bool) -> Response:
        self._counts["pages"] += 1
        number = walk.number(cursor)
        encoding, parts = walk.body(number, gzip_accepted=gzip_accepted)
        return 200, walk.request_id(number), list(parts), encoding

    def _lookup(self, request: dict[str, Any]) -> Response:
        if unknown := request.keys() - _LOOKUP_FIELDS[self._generation]:
            return self._refuse(unknown)
        self._counts["lookups"] += 1
        view = self._views.get(request["url"])
        if view is None:
            return _json_response(404, {"detail": "product_not_found"})
        return 200, str(uuid.uuid4()), [view], ""

    def _of_url_lists(self, method: str, path: str, body: bytes) -> Response:
        """Make a URL list, or add to one. None is in the list of lists, so each run makes one."""
        if method == "GET":
            return _json_response(200, {"items": [], "nextCursor": None})
        if not path:
            self._url_lists.append(set())
            entry = {
                "urlListId": str(len(self._url_lists) - 1),
                "name": json.loads(body)["name"],
                "status": "active",
                "urlCount": 0,
                "bigQuery": None,
                "createdAt": _INDEXED_AT,
                "updatedAt": _INDEXED_AT,
            }
            return _json_response(201, entry)
        _, number, operation = path.split("/")
        if operation != "urls":
            return _json_response(404, {"detail": "Not Found"})
        urls, url_list = json.loads(body)["urls"], self._url_lists[int(number)]
        url_list.update(urls)
        outcome = {
            "accepted": [{"url": url, "normalizedUrl": url} for url in urls],
            "rejected": [],
            "urlCount": len(url_list),
            "requestId": str(uuid.uuid4()),
        }
        return _json_response(200, outcome)

    @staticmethod
    def _refuse(fields: set[str]) -> Response:
        detail = [
            {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs", "input": None}
            for name in sorted(fields)
        ]
        return _json_response(422, {"detail": detail})

    def _coverage(self) -> dict[str, Any]:
        """Return what `GET /domains/{host}` says, with the brands of each catalog."""
        entries = [
            {
                "catalog": key,
                "catalogDisplayName": "Northgate",
                "productCount": catalog.products,
                "computedAt": _INDEXED_AT,
                "fields": [
                    {
                        "name": "brand_name",
                        "displayName": "Brand",
                        "source": "core",
                        "coverage": 0.98,
                        "populated": catalog.products,
                        "distinct": len(brands),
                        "truncated": False,
                        "topValues": [
                            {"value": name, "label": name, "count": count} for name, count in brands
                        ],
                    }
                ],
                "price": None,
            }
            for key, catalog in self._catalogs.items()
            if (brands := catalog.top_brands()) and key != WARM_UP
        ]
        return {"host": HOST, "catalogs": entries}


def _brand_filters(request: dict[str, Any]) -> Filters | None:
    """Return the filters of a search; None if it has others than brands."""
    facets, excluded = (request.get(name) or [] for name in ("facets", "exclude_facets"))
    if any(facet["name"] != "brand_name" for facet in [*facets, *excluded]):
        return None
    return Filters(_names(facets) if facets else None, _names(excluded))


def _names(facets: list[dict[str, Any]]) -> frozenset[str]:
    return frozenset(value.lower() for facet in facets for value in facet["values"])


def _summary(key: str, products: int, indexed_at: str = _INDEXED_AT) -> dict[str, Any]:
    return {
        "catalog": key,
        "displayName": "Northgate",
        "sourceBaseUrl": f"https://{HOST}",
        "productCount": products,
        "lastIndexedAt": indexed_at,
    }


def _json_response(status: int, content: object) -> Response:
    return status, str(uuid.uuid4()), [json.dumps(content).encode()], ""


def _encoded(response: Response) -> bytes:
    status, request_id, body, encoding = response
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {sum(map(len, body))}\r\n"
        + (f"content-encoding: {encoding}\r\n" if encoding else "")
        + f"x-request-id: {request_id}\r\n"
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
        accepted = _GZIP.search(head) is not None
        if self._delay:
            asyncio.get_running_loop().call_later(
                self._delay, self._respond, operation, rest, accepted
            )
        else:
            self._respond(operation, rest, accepted)

    def _respond(self, operation: bytes, body: bytes, accepted: bool) -> None:
        assert self._transport is not None
        response = self._service.respond(operation, body, gzip_accepted=accepted)
        self._transport.write(_encoded(response))


async def _serve(service: Service, delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(service, delay), "127.0.0.1", 0, backlog=1000
    )
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port, "page_bytes": service.page_bytes}), flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin, closed.set)
    await closed.wait()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    delay = settings.pop("delay")
    asyncio.run(_serve(Service(**settings), delay))
