"""The MCP server: its protocol version, its path and its tokens."""

import asyncio

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from octogen_dagster.sandbox.hub.server import Hub
from tests.sandbox.hub.calls import LIST_SUBSCRIBERS, call, outcomes, post, post_tool


class TestWire:
    @pytest.mark.parametrize(
        ("requested", "offered"),
        [
            ("2025-11-25", "2025-06-18"),
            ("2025-06-18", "2025-06-18"),
            ("2025-03-26", "2025-03-26"),
        ],
    )
    def test_it_offers_no_later_protocol_version(
        self, hub: Hub, requested: str, offered: str
    ) -> None:
        client = {"name": "test", "version": "1"}
        params = {"protocolVersion": requested, "capabilities": {}, "clientInfo": client}
        result = post(hub, "initialize", params).json()["result"]
        assert result["protocolVersion"] == offered
        assert "tools" in result["capabilities"]

    def test_later_versions_are_refused(self, hub: Hub) -> None:
        response = post(hub, "tools/list", {}, **{"MCP-Protocol-Version": "2025-11-25"})
        assert response.status_code == 400
        assert "Unsupported protocol version: 2025-11-25" in response.text

    def test_a_missing_final_slash_is_a_redirect(self, hub: Hub) -> None:
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


class TestTokens:
    def test_a_token_expires(self, hub: Hub) -> None:
        hub.settings.access_token_seconds = 0
        token = hub.issue_access_token()
        assert post(hub, "tools/list", {}, Authorization=f"Bearer {token}").status_code == 401
        assert post_tool(hub).status_code == 200

    def test_all_tokens_can_be_expired(self, hub: Hub) -> None:
        hub.expire_access_tokens()
        assert post_tool(hub).status_code == 401
        token = hub.issue_access_token()
        assert not call(hub, LIST_SUBSCRIBERS, token=token).is_error


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
