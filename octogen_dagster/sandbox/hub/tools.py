"""Octogen's four BigQuery tools, with the rate limit and the faults in front of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from mcp_types import Tool as McpTool
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from octogen_dagster.sandbox.fault_model import ActiveFaults, Hits
from octogen_dagster.sandbox.hub.cells import SCHEMA_VERSION, SHARE_SCHEMA, HubCells, ToolFailure
from octogen_dagster.sandbox.hub.faults import ABSENT, TOOL_KINDS, HubFault

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
    share_schema: str = SHARE_SCHEMA
    schema_version: str = SCHEMA_VERSION


@dataclass(frozen=True)
class _Tool:
    description: str
    arguments: type[_Arguments]
    perform: Callable[[HubCells, Any], Any]
    has_cells: bool = True


_TOOLS = {
    "list_bigquery_listing_resources": _Tool(
        "List the listings of the shared catalogs.",
        _ListListings,
        lambda cells, arguments: cells.list_listings(arguments.catalogs),
        has_cells=False,
    ),
    "list_bigquery_subscribers": _Tool(
        "List the subscribers and their cells.",
        _ListSubscribers,
        lambda cells, arguments: cells.list_subscribers(),
    ),
    "register_bigquery_subscriber": _Tool(
        "Register a subscriber.",
        _Register,
        lambda cells, arguments: cells.register(
            arguments.request.project, arguments.request.principal
        ),
    ),
    "refresh_bigquery_subscription_status": _Tool(
        "Look up whether a subscriber has subscribed to a catalog.",
        _Refresh,
        lambda cells, arguments: cells.refresh(
            arguments.catalog_key, arguments.subscriber_principal
        ),
    ),
}


class Tools:
    """The tools as handlers of an MCP server.

    Args:
        cells: The cells that the tools read and change.
        faults: The faults in force.
        spend: Takes a request from the organisation's rate limit. Returns None, or the number of
            seconds after which there is a request again.
    """

    def __init__(
        self, cells: HubCells, faults: ActiveFaults[HubFault], spend: Callable[[], int | None]
    ) -> None:
        self._cells = cells
        self._faults = faults
        self._spend = spend

    async def list(
        self, ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        """Handle `tools/list`."""
        return ListToolsResult(
            tools=[
                McpTool(
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
        """Handle `tools/call`.

        Raises:
            MCPError: The rate limit is exceeded.
        """
        name, tool = params.name, _TOOLS.get(params.name)
        kinds = TOOL_KINDS if tool and tool.has_cells else TOOL_KINDS - {"cell"}
        hits = self._faults.hit(lambda fault: fault.selects(name, kinds))
        self._check_rate_limit(hits.exclusive)
        if tool is None:
            return _failure(f"Unknown tool: {name}")
        try:
            arguments = tool.arguments.model_validate(params.arguments or {})
        except ValidationError as error:
            return _failure(f"Error executing tool {name}: {error}")
        value = self._value(tool, arguments, hits)
        return _success(value, only_text=any(fault.kind == "text_only" for fault in hits.faults))

    def _check_rate_limit(self, fault: HubFault | None) -> None:
        if fault is not None and fault.kind == "rate_limit":
            raise _rate_limited(fault.value)
        retry_after = self._spend()
        if retry_after is not None:
            raise _rate_limited(retry_after)

    def _value(self, tool: _Tool, arguments: _Arguments, hits: Hits[HubFault]) -> Any:
        fault = hits.exclusive
        try:
            if fault is not None and fault.kind == "tool_error":
                raise ToolFailure(str(fault.value), "on request")
            value = tool.perform(self._cells, arguments)
        except ToolFailure as failure:
            value = {"error": failure.error, "message": failure.message}
        for fault in hits.faults:
            if fault.kind == "cell":
                _change_cells(value, fault)
        return value


def _rate_limited(retry_after: object) -> MCPError:
    return MCPError(_RATE_LIMITED, "rate_limit_exceeded", {"retry_after": retry_after})


def _failure(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _success(value: Any, only_text: bool) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=json.dumps(value))],
        structured_content=None if only_text else {"result": value},
    )


def _change_cells(value: Any, fault: HubFault) -> None:
    """Set the fields of a `cell` fault in the cells of a tool's value, in place."""
    for cell in value.get("cells", [value] if "status" in value else []):
        if fault.catalog in (None, cell["catalogKey"]):
            cell.update(fault.value)
            for field in [field for field, its_value in cell.items() if its_value is ABSENT]:
                del cell[field]
