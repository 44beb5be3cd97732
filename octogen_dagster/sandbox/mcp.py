"""Octogen's MCP server with its four BigQuery tools. It accepts one access token."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool
from pydantic import TypeAdapter, ValidationError, validate_call
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypedDict

from octogen_dagster.sandbox.listings import LOCATION, HubCall, Listing, Listings

MCP_PATH = "/mcp/"
_PREPARING = {"preparing": "preparing", "revoked": "scope_revoked"}

Json = dict[str, Any]


class SubscriberRequest(TypedDict):
    """Arguments for `register_bigquery_subscriber`."""

    subscriberProjectId: str
    subscriberPrincipal: str


class Tools:
    """The tools, and Octogen's record of each subscriber and shared catalog.

    Octogen learns about a subscription only when its cell is refreshed.
    """

    def __init__(self, store: Listings) -> None:
        self._store = store
        self._known: set[str] = set()  # subscriptions, by name

    def list_bigquery_listing_resources(
        self, catalogs: list[str] | None = None
    ) -> list[Json] | Json:
        """List the listings for shared catalogs."""
        shared = {each.catalog: each for each in self._catalogs()}
        wanted = list(shared) if catalogs is None else catalogs
        if missing := [key for key in wanted if key not in shared]:
            return _failure("catalog_not_granted", f"{missing[0]!r} has no BigQuery listing")
        return [{"catalogKey": key, **_place(shared[key], "<your-project>")} for key in wanted]

    def list_bigquery_subscribers(self) -> Json:
        """List the subscribers and their cells."""
        subscribers = list(self._store.readers.values())
        return {"subscribers": subscribers, "cells": self._cells(subscribers)}

    def register_bigquery_subscriber(self, request: SubscriberRequest) -> Json:
        """Register a subscriber."""
        key = (request["subscriberProjectId"], request["subscriberPrincipal"])
        own_id = f"subscriber-{len(self._store.readers) + 1}"
        new = {"subscriberId": own_id, **request, "desiredState": "enabled"}
        subscriber = self._store.readers.setdefault(key, new)
        return {"subscriber": subscriber, "cells": self._cells([subscriber])}

    def refresh_bigquery_subscription_status(
        self,
        catalog_key: str,
        subscriber_principal: str,
        share_schema: str = "exported_product_view",
        schema_version: str = "v1",
    ) -> Json:
        """Check whether a subscriber has subscribed to a catalog."""
        subscribers = [
            subscriber
            for (_, principal), subscriber in self._store.readers.items()
            if principal == subscriber_principal
        ]
        if not subscribers:
            return _failure("subscriber_not_found", f"{subscriber_principal} is not registered")
        of_catalog = [each for each in self._store.subscriptions if each.catalog == catalog_key]
        self._known |= {each.name for each in of_catalog}
        cells = [each for each in self._cells(subscribers) if each["catalogKey"] == catalog_key]
        return cells[0] if cells else _failure("catalog_not_found", f"{catalog_key} is not shared")

    def _cells(self, subscribers: list[Json]) -> list[Json]:
        return [
            {
                "subscriberId": subscriber["subscriberId"],
                "catalogKey": listing.catalog,
                **self._status(subscriber["subscriberProjectId"], listing),
                **_place(listing, subscriber["subscriberProjectId"]),
                "shareSchema": "exported_product_view",
                "schemaVersion": "v1",
            }
            for subscriber in subscribers
            for listing in self._catalogs()
        ]

    def _catalogs(self) -> list[Listing]:
        return [each for each in self._store.listings if not each.is_url_list]

    def _status(self, project: str, listing: Listing) -> Json:
        if reason := _PREPARING.get(listing.access):
            return {"status": "preparing", "reasonCode": reason}
        is_known = any(
            each.is_active and each.name in self._known
            for each in self._store.subscriptions
            if (each.project, each.catalog) == (project, listing.catalog)
        )
        return {"status": "active" if is_known else "awaiting_subscription", "reasonCode": None}


def _failure(error: str, message: str) -> Json:
    return {"error": error, "message": message}


def _place(listing: Listing, project: str) -> Json:
    """Return a catalog's location, and how to read the catalog from `project`."""
    dataset = "octogen_" + re.sub(r"[^A-Za-z0-9_]", "_", listing.name.rpartition("/")[2])
    view = f"{project}.{dataset}.products_current_v1"
    return {
        "listingResource": listing.name,
        "linkedDatasetSuggestion": dataset,
        "location": LOCATION,
        "sampleQuery": f"SELECT * FROM `{view}` LIMIT 10;",  # noqa: S608
    }


def create_app(store: Listings, token: str, others: Mapping[str, ASGIApp]) -> ASGIApp:
    """Return the ASGI app that serves the tools to clients with the token.

    Other apps are served by path.
    """
    own = Tools(store)
    tools: dict[str, Callable[..., Any]] = {
        tool.__name__: tool
        for tool in (
            own.list_bigquery_listing_resources,
            own.list_bigquery_subscribers,
            own.register_bigquery_subscriber,
            own.refresh_bigquery_subscription_status,
        )
    }

    async def list_tools(ctx: object, params: object) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Tool(
                    name=name,
                    description=tool.__doc__,
                    input_schema=TypeAdapter(tool).json_schema(),  # type: ignore[arg-type]
                )
                for name, tool in tools.items()
            ]
        )

    async def call_tool(ctx: object, params: CallToolRequestParams) -> CallToolResult:
        call = store.log(HubCall(params.name, "error"))
        try:
            value = validate_call(tools[params.name])(**params.arguments or {})
        except (KeyError, ValidationError) as error:
            text = f"Error executing tool {params.name}: {error}"
            return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)
        if "error" not in value:
            call.outcome = "OK"
        return CallToolResult(
            content=[TextContent(type="text", text=json.dumps(value))],
            structured_content={"result": value},
        )

    server: Server[Any] = Server(
        "octogen-sandbox", on_list_tools=list_tools, on_call_tool=call_tool
    )
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH, json_response=True, stateless_http=True
    )

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        chosen: ASGIApp = app
        if scope["type"] == "http":
            served = (other for path, other in others.items() if scope["path"].startswith(path))
            is_allowed = Headers(scope=scope).get("authorization") == bearer
            chosen = next(served, app if is_allowed else Response(status_code=401))
        await chosen(scope, receive, send)

    bearer = f"Bearer {token}"
    return choose
