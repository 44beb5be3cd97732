"""HTTP endpoints of the hub whose calls are logged and can be hit by faults."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import pydantic_core
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octogen_dagster.sandbox.fault_model import ActiveFaults
from octogen_dagster.sandbox.http_effects import delay, web_page
from octogen_dagster.sandbox.hub.faults import HTTP_KINDS, TOKEN, HubFault
from octogen_dagster.sandbox.request_log import HubCall, RequestLog, Surface

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class CallFormat:
    """The way in which an endpoint's calls are read for the log.

    Attributes:
        surface: The surface that is logged.
        parse_call: Returns the method and the arguments of a call, from the request body.
        parse_outcome: Returns the outcome of a call, from the body of a 200 or 202.
    """

    surface: Surface
    parse_call: Callable[[bytes], tuple[str, Json]]
    parse_outcome: Callable[[bytes], str]


class Endpoint:
    """An ASGI application around another one, which logs its calls and applies faults to them.

    Latency and a lost response hit a call that was done. The other faults keep the call from the
    application.

    Args:
        app: The application that does the calls. A call is a POST with one response.
        call_format: The format of the calls.
        faults: The faults in force.
        log: The log.
        closing: Set when the server stops, so that latency ends at once.
    """

    def __init__(
        self,
        app: ASGIApp,
        call_format: CallFormat,
        faults: ActiveFaults[HubFault],
        log: RequestLog[HubCall],
        closing: asyncio.Event,
    ) -> None:
        self._app = app
        self._format = call_format
        self._faults = faults
        self._log = log
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        method, arguments = self._format.parse_call(body)
        call = HubCall(self._format.surface, method, arguments)
        call_id = self._log.add(call)
        hits = self._faults.hit(lambda fault: fault.selects(method, HTTP_KINDS))
        response = await self._respond(scope, body, hits.exclusive)
        self._log.update(call_id, replace(call, outcome=self._outcome(response)))
        await delay(hits.latency_seconds, self._closing)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, body: bytes, fault: HubFault | None) -> Response:
        replacement = None if fault is None else _replacement_response(fault)
        if replacement is not None:
            return replacement
        response = await _run(self._app, scope, body)
        if fault is not None and fault.kind == "lost_response":
            return web_page(502)
        return response

    def _outcome(self, response: Response) -> str:
        if response.status_code in (200, 202):
            return self._format.parse_outcome(bytes(response.body))
        return str(response.status_code)


def _parse_rpc_call(body: bytes) -> tuple[str, Json]:
    """Return the tool and its arguments, or the method and the parameters of any other call."""
    message = _json_object(body)
    method, params = str(message.get("method")), message.get("params") or {}
    if method == "tools/call":
        return str(params.get("name")), params.get("arguments") or {}
    return method, params


def _parse_rpc_outcome(body: bytes) -> str:
    message = _json_object(body)
    if "error" in message:
        return str(message["error"]["code"])
    result = message.get("result", {})
    value = (result.get("structuredContent") or {}).get("result")
    is_failure = result.get("isError") or (isinstance(value, dict) and "error" in value)
    return "error" if is_failure else "OK"


def _parse_token_call(body: bytes) -> tuple[str, Json]:
    """Return the grant type and the client of a token request, but none of its secrets."""
    form = parse_qs(body.decode(errors="replace"))
    return TOKEN, {name: form[name][0] for name in ("grant_type", "client_id") if name in form}


def _replacement_response(fault: HubFault) -> Response | None:
    """Return the response to a call that `fault` keeps from the application."""
    match fault.kind:
        case "unauthorized":
            error = {"error": "invalid_token", "error_description": "Authentication required"}
            challenge = 'Bearer error="invalid_token", error_description="The token expired"'
            return JSONResponse(error, 401, {"WWW-Authenticate": challenge})
        case "html":
            return web_page()
        case "http_status":
            assert isinstance(fault.value, int)
            return web_page(fault.value)
        case _:
            return None


async def _run(app: ASGIApp, scope: Scope, body: bytes) -> Response:
    """Let an application handle a request whose body was read, and return the response."""
    response = Response()
    parts: list[bytes] = []
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status_code = message["status"]
            response.raw_headers = list(message["headers"])
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    response.body = b"".join(parts)
    return response


def _json_object(body: bytes) -> Json:
    try:
        value = pydantic_core.from_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


RPC = CallFormat("mcp", _parse_rpc_call, _parse_rpc_outcome)
TOKENS = CallFormat("token", _parse_token_call, lambda body: "OK")
