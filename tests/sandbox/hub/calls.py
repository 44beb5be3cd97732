"""Calls of a hub, with Google's client and with the official MCP client."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import httpx2
from google.cloud import bigquery_analyticshub_v1 as ah
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from octogen_dagster.sandbox.hub.server import Hub

PROJECT = "reader-project"
LOCATION = f"projects/{PROJECT}/locations/us"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
SECONDS = 30
LIST_SUBSCRIBERS = "list_bigquery_subscribers"


def connect(hub: Hub | str) -> ah.AnalyticsHubServiceClient:
    """Google's client, connected to a hub or an endpoint without TLS and credentials."""
    transport = ah.AnalyticsHubServiceClient.get_transport_class("grpc")
    channel = grpc.insecure_channel(hub if isinstance(hub, str) else hub.endpoint)
    return ah.AnalyticsHubServiceClient(transport=transport(channel=channel))


def subscribe(
    client: ah.AnalyticsHubServiceClient,
    listing: str,
    dataset: str = "linked",
    *,
    project: str = PROJECT,
    location: str = "us",
    timeout: float = SECONDS,
) -> ah.Subscription:
    reference = ah.DestinationDatasetReference(project_id=project, dataset_id=dataset)
    destination = ah.DestinationDataset(
        dataset_reference=reference, location=location, friendly_name=f"Octogen {dataset}"
    )
    request = ah.SubscribeListingRequest(name=listing, destination_dataset=destination)
    return client.subscribe_listing(request=request, timeout=timeout).subscription


def call(
    hub: Hub, tool: str, arguments: dict[str, Any] | None = None, token: str | None = None
) -> CallToolResult:
    """The result of a tool, called by the official client.

    Raises:
        MCPError: A JSON-RPC error.
    """

    async def run() -> CallToolResult | MCPError:
        headers = {"Authorization": f"Bearer {token or hub.access_token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=SECONDS) as http,
            Client(streamable_http_client(hub.mcp_url, http_client=http)) as client,
        ):
            try:
                result = await client.call_tool(tool, arguments or {})
            except MCPError as error:  # it would leave the client in an exception group
                return error
            assert isinstance(result, CallToolResult)
            return result

    result = asyncio.run(run())
    if isinstance(result, MCPError):
        raise result
    return result


def value(hub: Hub, tool: str, arguments: dict[str, Any] | None = None) -> Any:
    """The value of a tool."""
    result = call(hub, tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content
    return result.structured_content["result"]


def register(hub: Hub, project: str = PROJECT, principal: str = PRINCIPAL) -> Any:
    request = {"subscriberProjectId": project, "subscriberPrincipal": principal}
    return value(hub, "register_bigquery_subscriber", {"request": request})


def refresh(hub: Hub, catalog: str, principal: str = PRINCIPAL) -> Any:
    return value(
        hub,
        "refresh_bigquery_subscription_status",
        {
            "catalog_key": catalog,
            "subscriber_principal": principal,
            "share_schema": "exported_product_view",
            "schema_version": "v1",
        },
    )


def statuses(hub: Hub) -> dict[str, str]:
    """The status of each catalog for the only subscriber."""
    cells = value(hub, "list_bigquery_subscribers")["cells"]
    return {cell["catalogKey"]: cell["status"] for cell in cells}


def outcomes(hub: Hub, method: str) -> list[str | None]:
    """The outcomes of the calls of a method, in order of arrival."""
    return [call.outcome for call in hub.calls if call.method == method]


def subscriptions(client: ah.AnalyticsHubServiceClient, text: str = "") -> list[ah.Subscription]:
    request = ah.ListSubscriptionsRequest(parent=LOCATION, filter=text)
    return list(client.list_subscriptions(request=request, timeout=SECONDS))


def listing_names(client: ah.AnalyticsHubServiceClient, parent: str, **page: int) -> list[str]:
    request = ah.ListListingsRequest(parent=parent, **page)
    return [listing.name for listing in client.list_listings(request=request, timeout=SECONDS)]


def post(hub: Hub, method: str, params: Any, **headers: str) -> httpx.Response:
    """Send a JSON-RPC request as the contract describes it."""
    return httpx.post(
        hub.mcp_url,
        json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params},
        headers={
            "Authorization": f"Bearer {hub.access_token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-06-18",
            **headers,
        },
        timeout=SECONDS,
    )


def post_tool(hub: Hub, tool: str = LIST_SUBSCRIBERS, **arguments: Any) -> httpx.Response:
    return post(hub, "tools/call", {"name": tool, "arguments": arguments})


def wait_until(is_reached: Callable[[], bool]) -> None:
    """Return when another thread has brought the hub into some state.

    Raises:
        AssertionError: That took longer than 30 seconds.
    """
    for _ in range(SECONDS * 100):
        if is_reached():
            return
        threading.Event().wait(0.01)
    raise AssertionError("the hub did not reach the state")
