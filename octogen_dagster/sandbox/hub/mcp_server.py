"""Octogen's MCP server in a sandbox: the four BigQuery tools over `hub_cells`.

It knows tools, their arguments and how a value is wrapped; what it says is in `hub_cells`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mcp.server.auth.provider import ProviderTokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from octogen_dagster.sandbox.hub.cells import HubCells, ToolFailure
from octogen_dagster.sandbox.hub.faults import ABSENT, TOOL_KINDS, HubFault, HubFaults
from octogen_dagster.sandbox.hub.oauth import AuthorizationServer

MCP_PATH = "/mcp/"
_PROTOCOL_VERSION = "2025-06-18"
_RATE_LIMITED = -32029


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _ListListings(_Arguments):
    catalogs: list[str] | None = None


class _ListSubscribers(_Arguments):
    pass


class _SubscriberRequest(_Arguments):
    project: str = Field(alias="subscriberProjectId")
    principal: str = Field(alias="subscriberPrincipal")


class _Register(_Arguments):
    request: _SubscriberRequest


class _Refresh(_Arguments):
    catalog_key: str
    subscriber_principal: str
    share_schema: Literal["exported_product_view"]
    schema_version: Literal["v1"]


@dataclass(frozen=True)
class _Tool:
    description: str
    arguments: type[_Arguments]
    perform: Callable[[HubCells, Any], Any]
    has_cells: bool = True


_TOOLS = {
    "list_bigquery_listing_resources": _Tool(
        "The listings of the shared catalogs.",
        _ListListings,
        lambda cells, arguments: cells.list_listings(arguments.catalogs),
        has_cells=False,
    ),
    "list_bigquery_subscribers": _Tool(
        "The subscribers and their cells.",
        _ListSubscribers,
        lambda cells, arguments: cells.list_subscribers(),
    ),
    "register_bigquery_subscriber": _Tool(
        "Make a subscriber known.",
        _Register,
        lambda cells, arguments: cells.register(
            arguments.request.project, arguments.request.principal
        ),
    ),
    "refresh_bigquery_subscription_status": _Tool(
        "Look whether a subscriber has subscribed to a catalog.",
        _Refresh,
        lambda cells, arguments: cells.refresh(
            arguments.catalog_key, arguments.subscriber_principal
        ),
    ),
}


class Tools:
    """The tools, with the rate limit and the faults in front of them.

    Args:
        cells: What they show and change.
        faults: What goes wrong.
        spend: Takes a request from the organisation's rate limit; returns None, or the seconds
            after which there is one again.
    """

    def __init__(self, cells: HubCells, faults: HubFaults, spend: Callable[[], int | None]) -> None:
        self._cells = cells
        self._faults = faults
        self._spend = spend

    async def list(
        self, ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Tool(
                    name=name,
                    description=tool.description,
                    input_schema=tool.arguments.model_json_schema(),
                )
                for name, tool in _TOOLS.items()
            ]
        )

    async def call(
        self, ctx: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        tool = _TOOLS.get(params.name)
        kinds = TOOL_KINDS if tool and tool.has_cells else TOOL_KINDS - {"cell"}
        faults = self._faults.hit(params.name, kinds)
        by_kind = {fault.kind: fault for fault in faults}
        if "rate_limit" in by_kind:
            raise _rate_limited(by_kind["rate_limit"].value)
        retry_after = self._spend()
        if retry_after is not None:
            raise _rate_limited(retry_after)
        if tool is None:
            return _failed(f"Unknown tool: {params.name}")
        try:
            arguments = tool.arguments.model_validate(params.arguments or {})
        except ValidationError as error:
            return _failed(f"Error executing tool {params.name}: {error}")
        try:
            if "tool_error" in by_kind:
                raise ToolFailure(str(by_kind["tool_error"].value), "on request")
            value = tool.perform(self._cells, arguments)
        except ToolFailure as failure:
            value = {"error": failure.error, "message": failure.message}
        for fault in faults:
            if fault.kind == "cell":
                _spoil_cells(value, fault)
        return _succeeded(value, only_text="text_only" in by_kind)


def create_mcp_app(tools: Tools, login: AuthorizationServer, origin: str) -> Starlette:
    """The application that serves `tools` to whoever has an access token of `login`.

    Args:
        origin: Scheme, host and port of the sandbox.
    """
    server: Server[Any] = Server(
        "octogen-sandbox", on_list_tools=tools.list, on_call_tool=tools.call
    )
    server.middleware.append(_answer_with_our_version)
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
    """Answers a request of a later protocol version with 400, as a server of ours would."""

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


async def _answer_with_our_version(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    result = await call_next(ctx)
    if ctx.method != "initialize" or not isinstance(result, dict):
        return result
    return result | {"protocolVersion": min(result["protocolVersion"], _PROTOCOL_VERSION)}


def _rate_limited(retry_after: object) -> MCPError:
    return MCPError(_RATE_LIMITED, "rate_limit_exceeded", {"retry_after": retry_after})


def _failed(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _succeeded(value: Any, only_text: bool) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=json.dumps(value))],
        structured_content=None if only_text else {"result": value},
    )


def _spoil_cells(value: Any, fault: HubFault) -> None:
    """Give the cells in the value of a tool other fields."""
    for cell in value.get("cells", [value] if "status" in value else []):
        if fault.catalog in (None, cell["catalogKey"]):
            cell.update(fault.value)
            for field in [field for field, its_value in cell.items() if its_value is ABSENT]:
                del cell[field]
