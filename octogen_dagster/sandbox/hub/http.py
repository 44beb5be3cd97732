"""The door of the hub's HTTP endpoints: every call is noted, and goes wrong when it is asked to."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import pydantic_core
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octogen_dagster.sandbox.hub.faults import HTTP_KINDS, TOKEN, HubFault, HubFaults
from octogen_dagster.sandbox.hub.log import HubLog, Surface

Json: TypeAlias = dict[str, Any]

_WEB_PAGE = "<!doctype html><title>Just a moment...</title><h1>Checking your browser</h1>"


@dataclass(frozen=True)
class Language:
    """How calls are read.

    Attributes:
        surface: Where they are noted.
        read: The method and the arguments of a call, from its body.
        judge: Its outcome for the log, from the body of an answer that is a success of HTTP.
    """

    surface: Surface
    read: Callable[[bytes], tuple[str, Json]]
    judge: Callable[[bytes], str]


class Door:
    """Lets calls into an application and their answers out.

    Latency and a lost answer hit a call that was done; the other faults keep it out.

    Args:
        app: What does the calls, each of them a POST with one answer.
        language: How they are read.
        faults: What goes wrong.
        log: Where they are noted.
        closing: Set when the server goes down, so that latency ends at once.
    """

    def __init__(
        self,
        app: ASGIApp,
        language: Language,
        faults: HubFaults,
        log: HubLog,
        closing: asyncio.Event,
    ) -> None:
        self._app = app
        self._language = language
        self._faults = faults
        self._log = log
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        method, arguments = self._language.read(body)
        call = self._log.begin(self._language.surface, method, arguments)
        faults = self._faults.hit(method, HTTP_KINDS)
        fault = next((fault for fault in faults if fault.kind != "latency"), None)
        answer = None if fault is None else _instead(fault)
        if answer is None:
            answer = await _run(self._app, scope, body)
        if fault is not None and fault.kind == "lost_answer":
            answer = HTMLResponse(_WEB_PAGE, 502)
        is_success = answer.status_code in (200, 202)
        outcome = self._language.judge(bytes(answer.body)) if is_success else answer.status_code
        self._log.end(call, str(outcome))
        for latency in (fault for fault in faults if fault.kind == "latency"):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), latency.value)  # type: ignore[arg-type]
        await answer(scope, receive, send)


def _read_rpc(body: bytes) -> tuple[str, Json]:
    """The tool and its arguments in a JSON-RPC message; or its method and parameters."""
    message = _json_object(body)
    method, params = str(message.get("method")), message.get("params") or {}
    if method == "tools/call":
        return str(params.get("name")), params.get("arguments") or {}
    return method, params


def _judge_rpc(body: bytes) -> str:
    """The outcome in a JSON-RPC answer."""
    message = _json_object(body)
    if "error" in message:
        return str(message["error"]["code"])
    result = message.get("result", {})
    value = (result.get("structuredContent") or {}).get("result")
    is_failure = result.get("isError") or (isinstance(value, dict) and "error" in value)
    return "error" if is_failure else "OK"


def _read_token_request(body: bytes) -> tuple[str, Json]:
    """The grant type and the client of a request for tokens; none of its secrets."""
    form = parse_qs(body.decode(errors="replace"))
    return TOKEN, {name: form[name][0] for name in ("grant_type", "client_id") if name in form}


def _instead(fault: HubFault) -> Response | None:
    """The answer to a call that is kept out."""
    match fault.kind:
        case "unauthorized":
            error = {"error": "invalid_token", "error_description": "Authentication required"}
            challenge = 'Bearer error="invalid_token", error_description="The token expired"'
            return JSONResponse(error, 401, {"WWW-Authenticate": challenge})
        case "html":
            return HTMLResponse(_WEB_PAGE)
        case "http_status":
            return HTMLResponse(_WEB_PAGE, int(fault.value))  # type: ignore[arg-type]
        case _:
            return None


async def _run(app: ASGIApp, scope: Scope, body: bytes) -> Response:
    """What an application answers to a request whose body was read."""
    answer = Response()
    parts: list[bytes] = []
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status_code = message["status"]
            answer.raw_headers = list(message["headers"])
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    answer.body = b"".join(parts)
    return answer


def _json_object(body: bytes) -> Json:
    try:
        value = pydantic_core.from_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


RPC = Language("mcp", _read_rpc, _judge_rpc)
TOKENS = Language("token", _read_token_request, lambda body: "OK")
