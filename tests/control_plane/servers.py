"""An MCP server of a few lines, for what the sandbox cannot do, and retries without long waits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.control_plane.tokens import GivenToken
from octogen_dagster.control_plane.tools import OctogenMCP
from tests.api.servers import RawServer, Received, http

QUICK = RetryPolicy(attempts=3, deadline=120.0, first_delay=0.001, max_delay=0.01)
TOKEN = "access-0123456789"
PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"

Respond = Callable[[Received], Iterable[bytes]]


def quick(deadline: float) -> RetryPolicy:
    """Retries without long waits, which end after the deadline."""
    return RetryPolicy(attempts=3, deadline=deadline, first_delay=0.001, max_delay=0.01)


@contextlib.contextmanager
def octogen_at(
    respond: Respond, timeout: float = 30.0, retry: RetryPolicy = QUICK
) -> Iterator[OctogenMCP]:
    """A client of a server that responds to every request with `respond`."""
    with (
        RawServer(respond) as server,
        OctogenMCP(
            GivenToken(TOKEN), f"{server.origin}/mcp/", timeout=timeout, retry=retry
        ) as octogen,
    ):
        yield octogen


def mcp(tool: Respond) -> Respond:
    """An MCP server whose tool calls are answered by `tool`."""

    def respond(request: Received) -> Iterable[bytes]:
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

    return respond


def reply(request: Received, result: Any) -> list[bytes]:
    """The response with the result of a call."""
    return http(body={"jsonrpc": "2.0", "id": request.json["id"], "result": result})


def refuse(request: Received, **error: Any) -> list[bytes]:
    """The response with the JSON-RPC error of a call."""
    return http(body={"jsonrpc": "2.0", "id": request.json["id"], "error": error})


def text_result(*texts: str, **fields: Any) -> dict[str, Any]:
    """The result of a tool that returns text."""
    return {
        "content": [{"type": "text", "text": text} for text in texts],
        "isError": False,
    } | fields


def grant(**fields: Any) -> list[bytes]:
    """The response of a token endpoint that issues an access token."""
    tokens = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 300}
    return http(body=tokens | fields)
