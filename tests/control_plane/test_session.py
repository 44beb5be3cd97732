from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from octogen_dagster.control_plane import session as mcp_session
from octogen_dagster.control_plane.tokens import GivenToken
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from tests.api.servers import RawServer, Received, hanging, http
from tests.sharing.secrets import leaks

PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
TOKEN = "access-0123456789"


def scripted(tool: Callable[[Received], list[bytes]]) -> Callable[[Received], list[bytes]]:
    """An MCP server whose tool calls are answered by `tool`."""

    def answer(request: Received) -> list[bytes]:
        method = request.json["method"] if request.body else None
        if method == "initialize":
            return reply(
                request,
                {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "scripted", "version": "1"},
                },
            )
        return tool(request) if method == "tools/call" else http(202)

    return answer


def reply(request: Received, result: Any) -> list[bytes]:
    return http(body={"jsonrpc": "2.0", "id": request.json["id"], "result": result})


def told(*texts: str, **fields: Any) -> dict[str, Any]:
    return {
        "content": [{"type": "text", "text": text} for text in texts],
        "isError": False,
    } | fields


@pytest.mark.parametrize("value", ["soon", -1, math.nan, math.inf, 10**400, True, None])
def test_a_wait_that_is_none_is_a_second(value: Any) -> None:
    def answer(request: Received) -> list[bytes]:
        error = {"code": -32029, "message": "spent", "data": {"retry_after": value}}
        return http(body={"jsonrpc": "2.0", "id": request.json["id"], "error": error})

    with (
        RawServer(scripted(answer)) as server,
        OctogenMCP(GivenToken(TOKEN), f"{server.origin}/mcp/", deadline=0.5) as octogen,
        pytest.raises(OctogenMCPRateLimitError, match=r"Try again in 1 s\.") as caught,
    ):
        octogen.subscribers()
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("value", ['"gone"', "[]", "5", "null"])
def test_a_cell_that_is_no_object_is_an_error(value: str) -> None:
    with (
        RawServer(scripted(lambda request: reply(request, told(value)))) as server,
        OctogenMCP(GivenToken(TOKEN), f"{server.origin}/mcp/") as octogen,
        pytest.raises(OctogenMCPError, match=r"answered with \w+ where an object belongs: report"),
    ):
        octogen.refresh_status("acme", PRINCIPAL)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"nonsense of {TOKEN}',
        f'{{"jsonrpc": "2.0", "id": 1, "result": "{TOKEN}"}}',
        f'{{"jsonrpc": "2.0", "id": 99, "result": {{"note": "{TOKEN}"}}}}',
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_a_server_that_sends_the_token_back_does_not_get_it_into_the_log(
    caplog: pytest.LogCaptureFixture, body: str, content_type: str
) -> None:
    def answer(request: Received) -> list[bytes]:
        event = body if content_type == "application/json" else f"data: {body}\n\n"
        return http(body=event.encode(), content_type=content_type)

    for name in ("", "mcp", "client"):
        caplog.set_level("DEBUG", logger=name)
    with (
        RawServer(scripted(answer)) as server,
        OctogenMCP(GivenToken(TOKEN), f"{server.origin}/mcp/", timeout=1, deadline=1) as octogen,
        pytest.raises(OctogenError),
    ):
        octogen.subscribers()
    records = [record for record in caplog.records if not record.name.startswith("httpcore")]
    logged = "".join(f"{record.getMessage()} {record.exc_info}" for record in records)
    assert "initialize" in logged
    assert TOKEN not in caplog.text
    assert TOKEN[:12] not in logged
    assert not any(logging.getLogger(name).filters for name in mcp_session._LOGGERS)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (told("sorry"), "tool list_bigquery_subscribers answered with something that is not JSON"),
        (told("[]"), "tool list_bigquery_subscribers answered without 'subscribers': report it"),
        (told('{"subscribers": 5, "cells": []}'), "answered with int where a list belongs"),
        (
            told("no such tool", isError=True),
            "tool list_bigquery_subscribers failed: no such tool.",
        ),
        (told("{}", structuredContent={"result": {"error": "x", "message": "y"}}), "failed: x: y."),
        (told(json.dumps({"error": f"bad {TOKEN}"})), "failed: bad [access token]."),
        ({"content": 5}, "gave a result that is none of MCP: report it"),
    ],
)
def test_values_that_cannot_be_used(result: Any, message: str) -> None:
    with (
        RawServer(scripted(lambda request: reply(request, result))) as server,
        OctogenMCP(GivenToken(TOKEN), f"{server.origin}/mcp/") as octogen,
        pytest.raises(OctogenError) as caught,
    ):
        octogen.subscribers()
    assert message in str(caught.value)
    assert leaks(caught.value, TOKEN) == []


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (lambda _: [b""], OctogenConnectionError, "did not answer (RemoteProtocolError): check"),
        (lambda _: http(length=50), OctogenConnectionError, "did not answer (RemoteProtocolError)"),
        (lambda _: http(body=b"{nope"), OctogenMCPError, "gave no result (-32700: Failed to parse"),
        (
            lambda _: http(302, location="http://x.example/"),
            OctogenMCPError,
            "Redirect to http://x.",
        ),
        (lambda _: http(401), OctogenMCPAuthenticationError, "is refused; they live for"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_server_that_gives_no_answer(
    answer: Callable[[Received], list[bytes]], kind: type[OctogenError], message: str, first: bool
) -> None:
    with (
        RawServer(answer if first else scripted(answer)) as server,
        OctogenMCP(GivenToken(TOKEN), f"{server.origin}/mcp/") as octogen,
        pytest.raises(kind) as caught,
    ):
        octogen.subscribers()
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert leaks(caught.value, TOKEN) == []


@pytest.mark.parametrize("first", [False, True])
def test_a_server_that_hangs(first: bool) -> None:
    server: RawServer

    def hang(_: Received) -> Any:
        return hanging(lambda: server)

    with RawServer(hang if first else scripted(hang)) as server:
        url = f"{server.origin}/mcp/"
        octogen = OctogenMCP(GivenToken(TOKEN), url, timeout=0.2, deadline=0.25)
        with octogen, pytest.raises(OctogenTimeoutError, match=r"answer within 0\.2 s: try again"):
            octogen.subscribers()


def test_nobody_listens() -> None:
    with (
        OctogenMCP(GivenToken(TOKEN), "http://127.0.0.1:1/mcp/") as octogen,
        pytest.raises(OctogenConnectionError, match=r"did not answer \(ConnectError\): check the"),
    ):
        octogen.subscribers()
