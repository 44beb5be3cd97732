"""Middleware around the routes. It logs requests, applies faults and adds headers."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from http.client import responses
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.search import decode_cursor
from octogen_dagster.sandbox.state import ReceivedRequest, State

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BASE_PATH = "/v1"
CREDIT_SPENT = {"code": "insufficient_credit", "top_up_url": "https://octogen.example/top-up"}
_SEARCH = "/products/search"
_REFILL_SECONDS = 60
_WEB_PAGE = "<!doctype html><title>Just a moment...</title><h1>Checking your browser</h1>"
_DETAILS: dict[int, Any] = {
    401: "Invalid API key",
    402: CREDIT_SPENT,
    403: "api_key_forbidden",
    404: "product_not_found",
    422: [{"loc": ["body"], "msg": "Input should be valid", "type": "value_error"}],
    429: "rate_limit_exceeded",
}


class Gateway:
    """Passes requests below the base path to an app, unless a fault replaces the response."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(f"{BASE_PATH}/"):
            await self._app(scope, receive, send)
            return
        try:
            content = await Request(scope, receive).body()
        except ClientDisconnect:  # the client was killed
            return
        received, hits = self._received(scope, content)
        self._state.log.append(received)
        seconds = sum(float(each.value or 0) for each in hits if each.kind == "latency")
        fault = next((each for each in hits if each.kind != "latency"), None)
        if seconds:  # or until the server stops
            await asyncio.wait({asyncio.wrap_future(self._state.closing)}, timeout=seconds)
        response = None if fault is None else _replacement(fault)
        if response is None:
            scope["received"] = received
            if fault is not None and fault.kind == "restart_cursor":
                content = json.dumps({**(received.body or {}), "cursor": None}).encode()
            response = await _response_of(self._app, scope, content)
            if fault is not None and response.status_code < 300:
                response = _altered(response, fault, received)
        self._add_headers(response, received.request_id)
        received.status = response.status_code
        if fault is not None and fault.kind == "cut":
            await _send_half(response, send)
        else:
            await response(scope, receive, send)

    def _received(self, scope: Scope, content: bytes) -> tuple[ReceivedRequest, list[Fault]]:
        """Log a request. Return the logged request and the faults that hit it."""
        path, body = scope["path"].removeprefix(BASE_PATH), _json_object(content)
        start = None
        if path == _SEARCH and body is not None:
            start = decode_cursor(body.get("cursor"), body)
        page = start.page if start else 1
        hits = self._state.faults.hit(path, page, start is not None, self._named(body or {}))
        kinds = tuple(fault.kind for fault in hits)
        return ReceivedRequest(scope["method"], path, body, str(uuid.uuid4()), page, kinds), hits

    def _named(self, body: dict[str, Any]) -> list[str]:
        """Return the keys of the catalogs named by a search, or found by a lookup."""
        if product := self._state.catalogs.find(str(body.get("url"))):
            return [product.catalog.key]
        names = body.get("catalogs", [body.get("catalog")])
        return names if isinstance(names, list) else []

    def _add_headers(self, response: Response, request_id: str) -> None:
        limiter = self._state.limiter
        reset = math.ceil(time.time() + limiter.seconds_to_full)
        response.headers["x-request-id"] = request_id
        response.headers["X-RateLimit-Limit"] = str(limiter.size)
        response.headers.setdefault("X-RateLimit-Remaining", str(limiter.remaining))
        response.headers.setdefault("X-RateLimit-Reset", str(reset))


def _altered(response: Response, fault: Fault, received: ReceivedRequest) -> Response:
    """Apply a fault to a successful response."""
    content = json.loads(bytes(response.body))
    products = _products(content)
    match fault.kind:
        case "truncate":
            half = response.body[: len(response.body) // 2]
            return Response(half, media_type="application/json")
        case "unknown_fields":
            _add_unknown_fields(content, products)
        case "loop_cursor":
            content["nextCursor"] = (received.body or {})["cursor"]
        case "wrong_type" | "price" if products:
            price = "not a number" if fault.value is None else fault.value
            products[len(products) // 2]["currentPrice"] = price
        case _:
            return response
    return JSONResponse(content)


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


async def _response_of(app: ASGIApp, scope: Scope, content: bytes) -> Response:
    """Return an app's response to a request with this body."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": content}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *parts = messages
    body = b"".join(part.get("body", b"") for part in parts)
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Response(body, start["status"], headers)


async def _send_half(response: Response, send: Send) -> None:
    """Announce the full body but send only half of it. The server then closes the connection."""
    status, headers = response.status_code, response.raw_headers
    half = response.body[: len(response.body) // 2]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": half, "more_body": True})


def _products(content: Any) -> list[dict[str, Any]]:
    """Return the products in a search or lookup response."""
    if not isinstance(content, dict):
        return []
    products: list[dict[str, Any]] = content.get("items", [])
    return [content["product"]] if "product" in content else products


def _add_unknown_fields(content: Any, products: list[dict[str, Any]]) -> None:
    objects = [*content] if isinstance(content, list) else [content]
    brands = [brand for product in products if (brand := product.get("brand")) is not None]
    for each in (*objects, *products, *brands):
        each["addedWithoutNotice"] = {"by": "sandbox"}


def _replacement(fault: Fault) -> Response | None:
    """Return the response that a fault sends instead of the real one, or None."""
    if fault.kind == "html":
        return Response(_WEB_PAGE, media_type="text/html")
    return _error(fault) if fault.kind == "status" else None


def _error(fault: Fault) -> Response:
    status, retry_after = int(fault.value or 500), fault.retry_after
    headers: dict[str, str] = {}
    if status == 429:
        retry_after = 1 if retry_after is None else retry_after
        headers["X-RateLimit-Remaining"] = "0"
        headers["X-RateLimit-Reset"] = str(math.ceil(time.time()) + _REFILL_SECONDS)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    detail = fault.detail or _DETAILS.get(status, responses.get(status, "Error"))
    return JSONResponse({"detail": detail}, status, headers)
