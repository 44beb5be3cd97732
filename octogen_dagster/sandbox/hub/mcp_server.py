"""The MCP server of the hub as an ASGI application."""

from typing import Any

from mcp.server.auth.provider import ProviderTokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from octogen_dagster.sandbox.hub.oauth import AuthorizationServer
from octogen_dagster.sandbox.hub.tools import Tools

MCP_PATH = "/mcp/"
_PROTOCOL_VERSION = "2025-06-18"


def create_mcp_app(tools: Tools, login: AuthorizationServer, origin: str) -> Starlette:
    """Create the application that serves `tools` to clients with an access token of `login`.

    Args:
        tools: The tools.
        login: The server that issued the access tokens.
        origin: The scheme, host and port of the sandbox.
    """
    server: Server[Any] = Server(
        "octogen-sandbox", on_list_tools=tools.list, on_call_tool=tools.call
    )
    server.middleware.append(_limit_offered_version)
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        json_response=True,
        stateless_http=True,
        auth=AuthSettings.model_validate(
            {
                "issuer_url": origin,
                "resource_server_url": f"{origin}{MCP_PATH}",
                "validate_token_resource": False,
            }
        ),
        token_verifier=ProviderTokenVerifier(login),
    )
    app.add_middleware(_RefuseLaterVersions)
    return app


class _RefuseLaterVersions:
    """Refuses requests of a later protocol version with 400, as a server of our version does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            version = Headers(scope=scope).get("mcp-protocol-version", _PROTOCOL_VERSION)
            if version > _PROTOCOL_VERSION:
                text = f"Bad Request: Unsupported protocol version: {version}"
                app = PlainTextResponse(text, 400)
        await app(scope, receive, send)


async def _limit_offered_version(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """Let the response to `initialize` offer our protocol version at most."""
    result = await call_next(ctx)
    if ctx.method != "initialize" or not isinstance(result, dict):
        return result
    return result | {"protocolVersion": min(result["protocolVersion"], _PROTOCOL_VERSION)}
