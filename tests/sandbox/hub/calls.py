"""How the tests speak to a hub: with Google's client and with the official MCP client."""

import asyncio
from typing import Any

import grpc
import httpx2
from google.cloud import bigquery_analyticshub_v1 as ah
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from octogen_dagster.sandbox.hub.hub import Hub

PROJECT = "reader-project"
LOCATION = f"projects/{PROJECT}/locations/us"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
SECONDS = 30


def connect(hub: Hub | str) -> ah.AnalyticsHubServiceClient:
    """Google's client, on a channel without TLS and without credentials, to a hub or endpoint."""
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
    """What a tool answers to the official client.

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
            except MCPError as error:  # leaves the client in a group of exceptions
                return error
            assert isinstance(result, CallToolResult)
            return result

    answer = asyncio.run(run())
    if isinstance(answer, MCPError):
        raise answer
    return answer


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
    """Catalog to status, of the only subscriber."""
    cells = value(hub, "list_bigquery_subscribers")["cells"]
    return {cell["catalogKey"]: cell["status"] for cell in cells}
