"""The MCP tools as the official client sees them, and their values on the wire."""

import json
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from octogen_dagster.sandbox.hub.faults import ABSENT, HubFault
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.hub.state import ON_COMMAND, GrantAfter
from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub.calls import (
    LIST_SUBSCRIBERS,
    PRINCIPAL,
    PROJECT,
    call,
    connect,
    outcomes,
    post,
    post_tool,
    refresh,
    register,
    statuses,
    subscribe,
    value,
)

TOOLS = {
    "list_bigquery_listing_resources": {"catalogs"},
    "list_bigquery_subscribers": set(),
    "register_bigquery_subscriber": {"request"},
    "refresh_bigquery_subscription_status": {
        "catalog_key",
        "subscriber_principal",
        "share_schema",
        "schema_version",
    },
}


class TestTools:
    async def test_they_are_those_of_the_contract(self, hub: Hub) -> None:
        headers = {"Authorization": f"Bearer {hub.access_token}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(hub.mcp_url, http_client=http)) as client,
        ):
            tools = (await client.list_tools()).tools
        assert {tool.name: set(tool.input_schema["properties"]) for tool in tools} == TOOLS
        assert outcomes(hub, "tools/list") == ["OK"]

    def test_listings(self, hub: Hub) -> None:
        assert value(hub, "list_bigquery_listing_resources") == []
        kumo = hub.share("kumo", grant=ON_COMMAND, location="eu", listing_id="kumo-2")
        hub.share("strada")
        hub.share("voltaic")
        hub.remove_listing("voltaic")
        listings = value(hub, "list_bigquery_listing_resources")
        assert listings[0] == {
            "catalogKey": "kumo",
            "listingResource": kumo,
            "linkedDatasetSuggestion": "octogen_kumo_2",
            "location": "eu",
            "sampleQuery": listings[0]["sampleQuery"],
        }
        assert "octogen_kumo_2.products_current_v1" in listings[0]["sampleQuery"]
        assert [listing["catalogKey"] for listing in listings] == ["kumo", "strada"]
        chosen = {"catalogs": ["strada"]}
        assert value(hub, "list_bigquery_listing_resources", chosen) == listings[1:]
        for unknown in ("unknown", "voltaic"):
            chosen = {"catalogs": ["strada", unknown]}
            failure = value(hub, "list_bigquery_listing_resources", chosen)
            assert failure["error"] == "catalog_not_granted"

    def test_from_registration_to_active(self, hub: Hub) -> None:
        assert value(hub, LIST_SUBSCRIBERS) == {"subscribers": [], "cells": []}
        resource = hub.share("kumo", grant=GrantAfter(denials=1))
        registered = register(hub)
        assert registered["subscriber"]["subscriberPrincipal"] == PRINCIPAL
        assert [cell["status"] for cell in registered["cells"]] == ["preparing"]
        client = connect(hub)
        with pytest.raises(Exception, match="denied on resource"):
            subscribe(client, resource)
        assert statuses(hub) == {"kumo": "awaiting_subscription"}
        subscribe(client, resource)
        assert statuses(hub) == {"kumo": "awaiting_subscription"}
        assert refresh(hub, "kumo")["status"] == "active"
        hub.make_stale("kumo")
        assert statuses(hub) == {"kumo": "source_stale"}
        hub.revoke_access("kumo")
        cell = refresh(hub, "kumo")
        assert (cell["status"], cell["reasonCode"]) == ("preparing", "scope_revoked")

    def test_a_disabled_subscriber_says_so(self, hub: Hub) -> None:
        register(hub)
        hub.disable_subscriber(PRINCIPAL)
        (subscriber,) = value(hub, LIST_SUBSCRIBERS)["subscribers"]
        assert subscriber["desiredState"] == "disabled"

    def test_a_failure_is_a_value_with_an_error(self, hub: Hub) -> None:
        assert register(hub, principal="nobody") == {
            "error": "invalid_request",
            "message": "subscriberPrincipal: 'nobody'",
        }
        register(hub)
        assert refresh(hub, "kumo")["error"] == "catalog_not_found"
        assert refresh(hub, "kumo", "user:else@x.y")["error"] == "subscriber_not_found"
        assert outcomes(hub, "refresh_bigquery_subscription_status") == ["error", "error"]

    @pytest.mark.parametrize(
        ("tool", "arguments"),
        [
            ("refresh_bigquery_subscription_status", {"catalog_key": "kumo"}),
            ("register_bigquery_subscriber", {"subscriberProjectId": PROJECT}),
            ("list_bigquery_listing_resources", {"catalog": "kumo"}),
            ("list_bigquery_subscribers", {"limit": 1}),
            ("list_catalogs", {}),
        ],
    )
    def test_other_arguments_and_tools_are_refused(
        self, hub: Hub, tool: str, arguments: dict[str, Any]
    ) -> None:
        result = call(hub, tool, arguments)
        assert result.is_error
        assert tool in str(result.content)
        assert (hub.calls[-1].method, hub.calls[-1].outcome) == (tool, "error")

    def test_ten_thousand_listings_come_in_one_value(self, hub: Hub) -> None:
        for number in range(10_000):
            hub.share(f"catalog-{number}")
        result = post_tool(hub, "list_bigquery_listing_resources").json()["result"]
        assert len(result["structuredContent"]["result"]) == 10_000

    def test_a_value_is_wrapped_and_repeated_as_text(self, hub: Hub) -> None:
        body = post_tool(hub).json()
        expected: dict[str, list[object]] = {"subscribers": [], "cells": []}
        assert body["result"]["structuredContent"] == {"result": expected}
        assert json.loads(body["result"]["content"][0]["text"]) == expected
        hub.inject(HubFault("text_only", times=1))
        result = post_tool(hub).json()["result"]
        assert "structuredContent" not in result
        assert json.loads(result["content"][0]["text"]) == expected


class TestRateLimit:
    def test_it_is_shared_with_the_rest_api(self, sandbox: Sandbox, hub: Hub) -> None:
        sandbox.set_rate_limit(2)
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        assert httpx.get(f"{sandbox.base_url}/me", headers=headers).status_code == 200
        assert "result" in post_tool(hub).json()
        with pytest.raises(MCPError, match="rate_limit_exceeded") as caught:
            call(hub, LIST_SUBSCRIBERS)
        assert caught.value.code == -32029
        assert 1 <= caught.value.data["retry_after"] <= 60
        assert httpx.get(f"{sandbox.base_url}/me", headers=headers).status_code == 429
        assert outcomes(hub, LIST_SUBSCRIBERS) == ["OK", "-32029"]

    def test_only_tools_count(self, sandbox: Sandbox, hub: Hub) -> None:
        sandbox.set_rate_limit(1)
        for _ in range(3):
            assert "result" in post(hub, "tools/list", {}).json()
        assert "result" in post_tool(hub).json()

    def test_a_fault_can_exceed_it(self, hub: Hub) -> None:
        hub.inject(HubFault("rate_limit", 7, method=LIST_SUBSCRIBERS, times=1))
        assert "result" in post_tool(hub, "list_bigquery_listing_resources").json()
        response = post_tool(hub)
        assert response.status_code == 200
        error = response.json()["error"]
        assert (error["code"], error["data"]) == (-32029, {"retry_after": 7})
        assert "result" in post_tool(hub).json()


class TestFaults:
    def test_a_tool_fails(self, hub: Hub) -> None:
        hub.inject(HubFault("tool_error", "boom", method="register_bigquery_subscriber", times=1))
        assert register(hub) == {"error": "boom", "message": "on request"}
        assert value(hub, LIST_SUBSCRIBERS)["subscribers"] == []
        assert "subscriber" in register(hub)

    def test_fields_of_cells_are_changed(self, hub: Hub) -> None:
        hub.share("kumo")
        hub.share("strada")
        register(hub)
        hub.inject(HubFault("cell", {"status": "melted", "location": ABSENT}, catalog="kumo"))
        kumo, strada = value(hub, LIST_SUBSCRIBERS)["cells"]
        assert kumo["status"] == "melted"
        assert "location" not in kumo
        assert strada["status"] == "awaiting_subscription"
        assert strada["location"] == "us"
        assert refresh(hub, "kumo")["status"] == "melted"
        assert value(hub, "list_bigquery_listing_resources")[0]["location"] == "us"
        hub.clear_faults()
        assert refresh(hub, "kumo")["status"] == "awaiting_subscription"

    def test_changed_cells_are_counted_where_there_are_cells(self, hub: Hub) -> None:
        hub.share("kumo")
        register(hub)
        hub.inject(HubFault("cell", {"status": "refresh_failed"}, times=1))
        value(hub, "list_bigquery_listing_resources")
        assert statuses(hub) == {"kumo": "refresh_failed"}
        assert statuses(hub) == {"kumo": "awaiting_subscription"}
