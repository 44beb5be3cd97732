"""The REST API of the sandbox as an ASGI application.

A request passes the faults, the key check and the rate limit before its operation runs. Every
response carries the headers of the contract. The server that runs the application is in
`http_server`.
"""

import asyncio
import hmac
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pydantic_core
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from octogen_dagster.sandbox.fault_model import ActiveFaults, Hits
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.http_effects import delay
from octogen_dagster.sandbox.request_log import ReceivedRequest, RequestLog
from octogen_dagster.sandbox.rest.account import (
    LOOKUP_USD,
    SEARCH_PAGE_USD,
    Account,
    InsufficientCreditError,
)
from octogen_dagster.sandbox.rest.fault_effects import (
    add_unknown_fields,
    alter_content,
    replacement_response,
)
from octogen_dagster.sandbox.rest.limiter import TokenBucket
from octogen_dagster.sandbox.rest.me import me
from octogen_dagster.sandbox.rest.operations import ApiError, Operations

_BASE_PATH = "/v1"
_CATALOGS = "/catalogs"
_SEARCH = "/products/search"
_LOOKUP = "/products/lookup"
_FACET_COUNTS = "/products/facet-counts"
_ME = "/me"
_DOMAINS = "/domains/"
_PRICES_USD = {_SEARCH: SEARCH_PAGE_USD, _LOOKUP: LOOKUP_USD}


@dataclass
class Gateway:
    """Everything that a request passes before its operation runs."""

    api_key: str
    limiter: TokenBucket
    faults: ActiveFaults[Fault]
    account: Account = field(default_factory=Account)
    unknown_fields: bool = False
    """True to add fields that no contract knows to every response."""
    log: RequestLog[ReceivedRequest] = field(default_factory=RequestLog[ReceivedRequest])
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server stops, so that latency ends at once."""


def create_app(gateway: Gateway, operations: Operations) -> Starlette:
    """Create the application that serves `operations` behind `gateway`."""
    return Starlette(routes=[Mount(_BASE_PATH, app=_RestApi(gateway, operations))])


class _RestApi:
    def __init__(self, gateway: Gateway, operations: Operations) -> None:
        self._gateway = gateway
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:  # the client was killed
            return
        received, hits = self._received(request, body)
        entry_id = self._gateway.log.add(received)
        await delay(hits.latency_seconds, self._gateway.closing)
        fault = hits.exclusive
        response = await self._respond(request, received, body, fault)
        self._add_headers(response, received.request_id)
        self._gateway.log.update(entry_id, replace(received, status=response.status_code))
        if fault is not None and fault.kind == "cut":
            await _send_half(response, send)
        else:
            await response(scope, receive, send)

    def _received(self, request: Request, body: bytes) -> tuple[ReceivedRequest, Hits[Fault]]:
        path = request.url.path.removeprefix(_BASE_PATH)
        start = self._operations.start_of_page(body) if path == _SEARCH else None
        page, has_cursor = start.page if start else 1, start is not None
        hits = self._gateway.faults.hit(lambda fault: fault.selects(path, page, has_cursor))
        received = ReceivedRequest(
            method=request.method,
            path=path,
            body=_json_object(body),
            request_id=str(uuid.uuid4()),
            has_key="authorization" in request.headers,
            page=page,
            faults=tuple(fault.kind for fault in hits.faults),
        )
        return received, hits

    async def _respond(
        self, request: Request, received: ReceivedRequest, body: bytes, fault: Fault | None
    ) -> Response:
        try:
            replacement = None if fault is None else replacement_response(fault)
            if replacement is not None:
                return replacement
            self._admit(request.headers.get("authorization"))
            return await run_in_threadpool(self._perform, received, body, fault)
        except ApiError as error:
            return _json_response({"detail": error.detail}, error.status, error.headers)

    def _admit(self, authorization: str | None) -> None:
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(401, "Authorization Bearer token required")
        if not hmac.compare_digest(key.strip().encode(), self._gateway.api_key.encode()):
            raise ApiError(401, "Invalid API key")
        if not self._gateway.limiter.take():
            retry_after = str(self._gateway.limiter.retry_after)
            raise ApiError(429, "rate_limit_exceeded", {"Retry-After": retry_after})

    def _perform(self, received: ReceivedRequest, body: bytes, fault: Fault | None) -> Response:
        content = self._operation(received, body, fault)()
        try:
            self._gateway.account.charge(_PRICES_USD.get(received.path, 0.0))
        except InsufficientCreditError as error:
            raise ApiError(402, error.detail) from None
        if self._gateway.unknown_fields:
            add_unknown_fields(content)
        if fault is not None:
            alter_content(content, fault, received.body or {})
        response = _json_response(content)
        if fault is not None and fault.kind == "truncate":
            return Response(_first_half(response), media_type="application/json")
        return response

    def _operation(
        self, received: ReceivedRequest, body: bytes, fault: Fault | None
    ) -> Callable[[], Any]:
        operations, path = self._operations, received.path
        restart = fault is not None and fault.kind == "restart_cursor"
        by_path: dict[str, tuple[str, Callable[[], Any]]] = {
            _SEARCH: ("POST", lambda: operations.search(body, received.request_id, restart)),
            _LOOKUP: ("POST", lambda: operations.lookup(body, received.request_id)),
        }
        if operations.generation == "current":
            by_path[_FACET_COUNTS] = ("POST", lambda: operations.count_facets(body))
            by_path[_ME] = ("GET", lambda: me(self._gateway.api_key, self._gateway.limiter))
            if path.startswith(_DOMAINS):
                by_path[path] = ("GET", lambda: operations.domain(path.removeprefix(_DOMAINS)))
        else:
            by_path[_CATALOGS] = ("GET", operations.list_catalogs)
        if path not in by_path:
            raise ApiError(404, "Not Found")
        method, operation = by_path[path]
        if received.method != method:
            raise ApiError(405, "Method Not Allowed", {"Allow": method})
        return operation

    def _add_headers(self, response: Response, request_id: str) -> None:
        limiter = self._gateway.limiter
        reset = math.ceil(time.time() + limiter.seconds_to_full)
        response.headers["x-request-id"] = request_id
        response.headers["X-RateLimit-Limit"] = str(limiter.size)
        response.headers.setdefault("X-RateLimit-Remaining", str(limiter.remaining))
        response.headers.setdefault("X-RateLimit-Reset", str(reset))


def _json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    body = pydantic_core.to_json(content, inf_nan_mode="null")
    return Response(body, status, headers, "application/json")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = pydantic_core.from_json(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _first_half(response: Response) -> bytes:
    return bytes(response.body[: len(response.body) // 2])


async def _send_half(response: Response, send: Send) -> None:
    """Announce the whole body but send half of it; the server then closes the connection."""
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "http.response.body", "body": _first_half(response), "more_body": True})
