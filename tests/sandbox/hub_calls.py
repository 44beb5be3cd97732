"""Calls of a sandbox's hub with Google's client and with the client of the `mcp` package."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import httpx2
from google.cloud import bigquery_analyticshub_v1 as ah
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from octogen_dagster.sandbox.server import Sandbox

PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
SECONDS = 30


class Google:
    """Google's client, connected to the hub of a sandbox or to an endpoint."""

    def __init__(self, hub: Sandbox | str) -> None:
        channel = grpc.insecure_channel(hub if isinstance(hub, str) else hub.hub.endpoint)
        transport = ah.AnalyticsHubServiceClient.get_transport_class("grpc")
        self.client = ah.AnalyticsHubServiceClient(transport=transport(channel=channel))

    def subscribe(
        self, listing: str, dataset: str = "linked", *, location: str = "us"
    ) -> ah.Subscription:
        reference = ah.DestinationDatasetReference(project_id=PROJECT, dataset_id=dataset)
        destination = ah.DestinationDataset(
            dataset_reference=reference, location=location, friendly_name=f"Octogen {dataset}"
        )
        request = ah.SubscribeListingRequest(name=listing, destination_dataset=destination)
        return self.client.subscribe_listing(request=request, timeout=SECONDS).subscription

    def subscriptions(self, location: str = "us", **page: Any) -> list[ah.Subscription]:
        parent = f"projects/{PROJECT}/locations/{location}"
        request = ah.ListSubscriptionsRequest(parent=parent, **page)
        return list(self.client.list_subscriptions(request=request, timeout=SECONDS))

    def listings(self, exchange: str, **page: Any) -> list[ah.Listing]:
        request = ah.ListListingsRequest(parent=exchange, **page)
        return list(self.client.list_listings(request=request, timeout=SECONDS))

    def delete(self, subscription: str) -> None:
        request = ah.DeleteSubscriptionRequest(name=subscription)
        deletion = self.client.delete_subscription(request=request, timeout=SECONDS)
        deletion.result(timeout=SECONDS)  # type: ignore[no-untyped-call]


def called(sandbox: Sandbox, tool: str, token: str | None = None, **arguments: Any) -> Any:
    """The result of a tool, called by the official client.

    Raises:
        MCPError: A JSON-RPC error.
    """
    token = token or sandbox.hub.access_token

    async def call() -> CallToolResult | MCPError:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=SECONDS) as http,
            Client(streamable_http_client(sandbox.hub.mcp_url, http_client=http)) as client,
        ):
            try:
                result = await client.call_tool(tool, arguments)
            except MCPError as error:  # it would leave the client in an exception group
                return error
            assert isinstance(result, CallToolResult)
            return result

    result = asyncio.run(call())
    if isinstance(result, MCPError):
        raise result
    return result


def value(sandbox: Sandbox, tool: str, **arguments: Any) -> Any:
    """The value of a tool, which is sent as text as well."""
    result = called(sandbox, tool, **arguments)
    assert not result.is_error, result.content
    return result.structured_content["result"]


def register(sandbox: Sandbox, project: str = PROJECT) -> Any:
    request = {"subscriberProjectId": project, "subscriberPrincipal": PRINCIPAL}
    return value(sandbox, "register_bigquery_subscriber", request=request)


def refresh(sandbox: Sandbox, catalog: str) -> Any:
    return value(
        sandbox,
        "refresh_bigquery_subscription_status",
        catalog_key=catalog,
        subscriber_principal=PRINCIPAL,
    )


def statuses(sandbox: Sandbox) -> dict[str, tuple[str, str | None]]:
    """The status and the reason of each catalog for the only subscriber."""
    cells = value(sandbox, "list_bigquery_subscribers")["cells"]
    return {cell["catalogKey"]: (cell["status"], cell["reasonCode"]) for cell in cells}
