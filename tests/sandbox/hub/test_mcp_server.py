"""The MCP server as the official client sees it, and as it is on the wire."""

import asyncio
import json
import threading
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from octogen_dagster.sandbox.hub.faults import ABSENT, HubFault
from octogen_dagster.sandbox.hub.hub import Hub
from octogen_dagster.sandbox.hub.state import ON_COMMAND, GrantAfter
from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub.calls import (
    PRINCIPAL,
    PROJECT,
    SECONDS,
    call,
    connect,
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
LIST = "list_bigquery_subscribers"


def post(hub: Hub, method: str, params: Any, **headers: str) -> httpx.Response:
    """A JSON-RPC request as the contract describes it."""
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


def post_tool(hub: Hub, tool: str = LIST, **arguments: Any) -> httpx.Response:
    return post(hub, "tools/call", {"name": tool, "arguments": arguments})


def outcomes(hub: Hub, method: str) -> list[str | None]:
    return [call.outcome for call in hub.calls if call.method == method]


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
        chosen = {"catalogs": ["strada", "unknown"]}
        assert value(hub, "list_bigquery_listing_resources", chosen) == listings[1:]

    def test_from_registration_to_active(self, hub: Hub) -> None:
        assert value(hub, LIST) == {"subscribers": [], "cells": []}
        resource = hub.share("kumo", grant=GrantAfter(denials=1))
        registered = register(hub)
        assert registered["subscriber"]["subscriberPrincipal"] == PRINCIPAL
        assert [cell["status"] for cell in registered["cells"]] == ["pending"]
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
        assert (cell["status"], cell["reasonCode"]) == ("pending", "scope_revoked")

    def test_a_disabled_subscriber_says_so(self, hub: Hub) -> None:
        register(hub)
        hub.disable_subscriber(PRINCIPAL)
        (subscriber,) = value(hub, LIST)["subscribers"]
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


class TestWire:
    def test_a_value_is_wrapped_and_repeated_as_text(self, hub: Hub) -> None:
        body = post_tool(hub).json()
        expected: dict[str, list[object]] = {"subscribers": [], "cells": []}
        assert body["result"]["structuredContent"] == {"result": expected}
        assert json.loads(body["result"]["content"][0]["text"]) == expected
        hub.inject(HubFault("text_only", times=1))
        result = post_tool(hub).json()["result"]
        assert "structuredContent" not in result
        assert json.loads(result["content"][0]["text"]) == expected

    @pytest.mark.parametrize(
        ("asked", "answered"),
        [
            ("2025-11-25", "2025-06-18"),
            ("2025-06-18", "2025-06-18"),
            ("2025-03-26", "2025-03-26"),
        ],
    )
    def test_its_protocol_version(self, hub: Hub, asked: str, answered: str) -> None:
        client = {"name": "test", "version": "1"}
        params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": client}
        result = post(hub, "initialize", params).json()["result"]
        assert result["protocolVersion"] == answered
        assert "tools" in result["capabilities"]

    def test_later_versions_are_refused(self, hub: Hub) -> None:
        response = post(hub, "tools/list", {}, **{"MCP-Protocol-Version": "2025-11-25"})
        assert response.status_code == 400
        assert "Unsupported protocol version: 2025-11-25" in response.text

    def test_the_slash_may_be_forgotten(self, hub: Hub) -> None:
        response = httpx.post(hub.mcp_url.removesuffix("/"))
        assert response.status_code == 307
        assert response.headers["location"] == hub.mcp_url

    @pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic eDp5"])
    def test_without_a_token_it_is_a_401_that_says_where_to_get_one(
        self, hub: Hub, authorization: str
    ) -> None:
        response = post(hub, "tools/list", {}, Authorization=authorization)
        assert response.status_code == 401
        challenge = response.headers["www-authenticate"]
        url = challenge.partition('resource_metadata="')[2].rstrip('"')
        metadata = httpx.get(url).json()
        assert metadata["resource"] == hub.mcp_url
        assert metadata["authorization_servers"] == [hub.authorization_server]
        assert outcomes(hub, "tools/list") == ["401"]

    def test_calls_are_logged_with_their_arguments(self, hub: Hub) -> None:
        register(hub)
        calls = [call for call in hub.calls if call.method == "register_bigquery_subscriber"]
        assert [(call.surface, call.outcome) for call in calls] == [("mcp", "OK")]
        assert calls[0].arguments == {
            "request": {"subscriberProjectId": PROJECT, "subscriberPrincipal": PRINCIPAL}
        }
        assert "initialize" in {call.method for call in hub.calls}

    def test_what_is_no_json_rpc_does_no_harm(self, hub: Hub) -> None:
        headers = {"Authorization": f"Bearer {hub.access_token}", "Accept": "application/json"}
        for body in (b"", b"{", b"[]", b"1", b'{"method": 5, "params": []}'):
            response = httpx.post(
                hub.mcp_url,
                content=body,
                headers={**headers, "Content-Type": "application/json"},
            )
            assert 400 <= response.status_code < 500
        assert post_tool(hub).status_code == 200


class TestTokens:
    def test_a_token_dies_after_a_while(self, hub: Hub) -> None:
        hub.settings.access_token_seconds = 0
        token = hub.issue_access_token()
        assert post(hub, "tools/list", {}, Authorization=f"Bearer {token}").status_code == 401
        assert post_tool(hub).status_code == 200

    def test_all_tokens_can_be_expired(self, hub: Hub) -> None:
        hub.expire_access_tokens()
        assert post_tool(hub).status_code == 401
        token = hub.issue_access_token()
        assert not call(hub, LIST, token=token).is_error


class TestRateLimit:
    def test_it_is_the_organisation_s(self, sandbox: Sandbox, hub: Hub) -> None:
        sandbox.set_rate_limit(2)
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        assert httpx.get(f"{sandbox.base_url}/catalogs", headers=headers).status_code == 200
        assert "result" in post_tool(hub).json()
        with pytest.raises(MCPError, match="rate_limit_exceeded") as caught:
            call(hub, LIST)
        assert caught.value.code == -32029
        assert 1 <= caught.value.data["retry_after"] <= 60
        assert httpx.get(f"{sandbox.base_url}/catalogs", headers=headers).status_code == 429
        assert outcomes(hub, LIST) == ["OK", "-32029"]

    def test_only_tools_count(self, sandbox: Sandbox, hub: Hub) -> None:
        sandbox.set_rate_limit(1)
        for _ in range(3):
            assert "result" in post(hub, "tools/list", {}).json()
        assert "result" in post_tool(hub).json()

    def test_it_can_be_spent_on_request(self, hub: Hub) -> None:
        hub.inject(HubFault("rate_limit", 7, method=LIST, times=1))
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
        assert value(hub, LIST)["subscribers"] == []
        assert "subscriber" in register(hub)

    def test_cells_are_spoiled(self, hub: Hub) -> None:
        hub.share("kumo")
        hub.share("strada")
        register(hub)
        hub.inject(HubFault("cell", {"status": "melted", "location": ABSENT}, catalog="kumo"))
        kumo, strada = value(hub, LIST)["cells"]
        assert kumo["status"] == "melted"
        assert "location" not in kumo
        assert strada["status"] == "awaiting_subscription"
        assert strada["location"] == "us"
        assert refresh(hub, "kumo")["status"] == "melted"
        assert value(hub, "list_bigquery_listing_resources")[0]["location"] == "us"
        hub.clear_faults()
        assert refresh(hub, "kumo")["status"] == "awaiting_subscription"

    def test_spoiled_cells_are_counted_where_there_are_cells(self, hub: Hub) -> None:
        hub.share("kumo")
        register(hub)
        hub.inject(HubFault("cell", {"status": "refresh_failed"}, times=1))
        value(hub, "list_bigquery_listing_resources")
        assert statuses(hub) == {"kumo": "refresh_failed"}
        assert statuses(hub) == {"kumo": "awaiting_subscription"}

    def test_a_web_page(self, hub: Hub) -> None:
        hub.inject(HubFault("html", method=LIST, times=1))
        response = post_tool(hub)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/html")
        assert response.text.startswith("<!doctype html>")

    def test_a_status(self, hub: Hub) -> None:
        hub.inject(HubFault("http_status", 502, method="initialize", times=1))
        assert post(hub, "tools/list", {}).status_code == 200
        assert post(hub, "initialize", {}).status_code == 502
        assert outcomes(hub, "initialize") == ["502"]

    def test_an_expired_token(self, hub: Hub) -> None:
        hub.inject(HubFault("unauthorized", times=1))
        response = post_tool(hub)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        assert post_tool(hub).status_code == 200

    def test_a_lost_answer_was_done(self, hub: Hub) -> None:
        hub.inject(HubFault("lost_response", method="register_bigquery_subscriber", times=1))
        request = {"subscriberProjectId": PROJECT, "subscriberPrincipal": PRINCIPAL}
        assert post_tool(hub, "register_bigquery_subscriber", request=request).status_code == 502
        assert len(value(hub, LIST)["subscribers"]) == 1

    def test_a_late_answer(self, hub: Hub) -> None:
        hub.inject(HubFault("latency", 0.01))
        assert post_tool(hub).status_code == 200

    def test_it_stops_while_somebody_waits(self) -> None:
        with Sandbox(catalogs=0, hub=True) as sandbox:
            sandbox.hub.inject(HubFault("latency", 3600))
            answers: list[object] = []

            def wait() -> None:
                try:
                    answers.append(post_tool(sandbox.hub).status_code)
                except httpx.HTTPError as error:
                    answers.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()
            while outcomes(sandbox.hub, LIST) != ["OK"]:
                threading.Event().wait(0.01)
            sandbox.__exit__(None, None, None)
            waiting.join(SECONDS)
        assert len(answers) == 1


def test_the_official_client_can_be_used_many_times(hub: Hub) -> None:
    hub.share("kumo")

    async def many() -> list[bool]:
        headers = {"Authorization": f"Bearer {hub.access_token}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(hub.mcp_url, http_client=http)) as client,
        ):
            return [
                result.is_error
                for result in await asyncio.gather(
                    *(client.call_tool("list_bigquery_listing_resources", {}) for _ in range(20))
                )
            ]

    assert asyncio.run(many()) == [False] * 20
