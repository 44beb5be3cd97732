"""The hub of the sandbox, as Google's client, the client of the `mcp` package and HTTP see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
from google.api_core import exceptions
from google.cloud import bigquery_analyticshub_v1 as ah
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub_calls import (
    PRINCIPAL,
    PROJECT,
    SECONDS,
    Google,
    exchanged,
    refresh,
    register,
    statuses,
    value,
)

LISTINGS = "list_bigquery_listing_resources"
SUBSCRIBERS = "list_bigquery_subscribers"
State = ah.Subscription.State


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox with a hub, whose REST API has one catalog."""
    with Sandbox(catalogs=["northpeak"], products=5, hub=True) as running:
        yield running


@pytest.fixture
def google(sandbox: Sandbox) -> Google:
    return Google(sandbox)


def outcomes(sandbox: Sandbox, method: str) -> list[str | None]:
    return [call.outcome for call in sandbox.hub.calls if call.method == method]


class TestAnalyticsHub:
    def test_a_shared_catalog_is_a_listing(self, sandbox: Sandbox, google: Google) -> None:
        name = sandbox.hub.share("north.peak")
        assert name == f"{sandbox.hub.exchange}/listings/north_peak"
        (listing,) = google.listings(sandbox.hub.exchange)
        assert (listing.name, listing.display_name) == (name, "north.peak")
        assert listing.resource_type == ah.SharedResourceType.BIGQUERY_DATASET
        assert google.client.get_listing(name=name, timeout=SECONDS) == listing

    def test_a_listing_becomes_a_linked_dataset(self, sandbox: Sandbox, google: Google) -> None:
        name = sandbox.hub.share("northpeak")
        made = google.subscribe(name, "mine", location="US")
        assert made.state == State.STATE_ACTIVE
        assert made.destination_dataset.dataset_reference.dataset_id == "mine"
        assert made.destination_dataset.friendly_name == "Octogen mine"
        (linked,) = made.linked_dataset_map.values()
        assert linked.linked_dataset == f"projects/{PROJECT}/datasets/mine"
        assert google.subscriptions() == [made]
        assert google.subscriptions("eu") == []
        assert sandbox.hub.datasets(PROJECT) == {"mine": made.name}
        (known,) = sandbox.hub.subscriptions
        assert (known.name, known.catalog, known.listing) == (made.name, "northpeak", name)

    def test_a_grant_may_arrive_later(self, sandbox: Sandbox, google: Google) -> None:
        name = sandbox.hub.share("northpeak", granted=False)
        assert not google.may_subscribe(name)
        with pytest.raises(exceptions.PermissionDenied, match=r"listings\.subscribe"):
            google.subscribe(name)
        sandbox.hub.grant_access("northpeak")
        assert google.may_subscribe(name)
        assert google.subscribe(name).state == State.STATE_ACTIVE
        assert outcomes(sandbox, "SubscribeListing") == ["PERMISSION_DENIED", "OK"]

    def test_what_cannot_be_subscribed_to_is_refused(
        self, sandbox: Sandbox, google: Google
    ) -> None:
        name = sandbox.hub.share("northpeak")
        sandbox.hub.add_dataset(PROJECT, "taken")
        with pytest.raises(exceptions.AlreadyExists, match=f"Dataset {PROJECT}:taken"):
            google.subscribe(name, "taken")
        with pytest.raises(exceptions.InvalidArgument, match="no-id"):
            google.subscribe(name, "no-id")
        with pytest.raises(exceptions.InvalidArgument, match="'eu'"):
            google.subscribe(name, location="eu")
        with pytest.raises(exceptions.NotFound):
            google.subscribe(f"{name}2")
        with pytest.raises(exceptions.NotFound):
            google.listings(f"{sandbox.hub.exchange}2")
        with pytest.raises(exceptions.MethodNotImplemented):
            google.client.get_data_exchange(name=sandbox.hub.exchange, timeout=SECONDS)
        assert sandbox.hub.subscriptions == []

    def test_a_revoked_subscription_holds_its_dataset_until_it_is_deleted(
        self, sandbox: Sandbox, google: Google
    ) -> None:
        name = sandbox.hub.share("northpeak")
        made = google.subscribe(name)
        sandbox.hub.make_stale("northpeak")
        assert google.subscriptions()[0].state == State.STATE_STALE
        sandbox.hub.revoke_access("northpeak")
        (revoked,) = google.subscriptions()
        assert revoked.state == State.STATE_INACTIVE
        assert not revoked.linked_dataset_map
        sandbox.hub.grant_access("northpeak")
        with pytest.raises(exceptions.AlreadyExists):
            google.subscribe(name)
        google.delete(made.name)
        assert sandbox.hub.datasets(PROJECT) == {}
        assert google.subscribe(name).name != made.name
        with pytest.raises(exceptions.NotFound):
            google.delete(made.name)


class TestTools:
    def test_a_catalog_goes_from_preparing_to_active(
        self, sandbox: Sandbox, google: Google
    ) -> None:
        name = sandbox.hub.share("northpeak", granted=False)
        registered = register(sandbox)
        assert registered["subscriber"] == {
            "subscriberId": "subscriber-1",
            "subscriberProjectId": PROJECT,
            "subscriberPrincipal": PRINCIPAL,
            "desiredState": "enabled",
        }
        assert register(sandbox) == registered
        assert statuses(sandbox) == {"northpeak": ("preparing", "preparing")}
        sandbox.hub.grant_access("northpeak")
        assert statuses(sandbox) == {"northpeak": ("awaiting_subscription", None)}
        google.subscribe(name)
        # Octogen learns of it only when it is told to look.
        assert statuses(sandbox) == {"northpeak": ("awaiting_subscription", None)}
        assert refresh(sandbox, "northpeak") == {
            "subscriberId": "subscriber-1",
            "catalogKey": "northpeak",
            "status": "active",
            "reasonCode": None,
            "listingResource": name,
            "linkedDatasetSuggestion": "octogen_northpeak",
            "location": "us",
            "sampleQuery": f"SELECT * FROM `{PROJECT}.octogen_northpeak.products_current_v1` "
            "LIMIT 10;",
            "shareSchema": "exported_product_view",
            "schemaVersion": "v1",
        }
        sandbox.hub.make_stale("northpeak")
        assert statuses(sandbox) == {"northpeak": ("source_stale", None)}
        sandbox.hub.revoke_access("northpeak")
        assert statuses(sandbox) == {"northpeak": ("preparing", "scope_revoked")}
        sandbox.hub.remove_listing("northpeak")
        assert statuses(sandbox) == {"northpeak": ("removing", "removing")}

    @pytest.mark.parametrize(
        ("tool", "arguments", "error"),
        [
            (LISTINGS, {"catalogs": ["kumo", "acme"]}, "catalog_not_granted"),
            (
                "refresh_bigquery_subscription_status",
                {"catalog_key": "acme", "subscriber_principal": PRINCIPAL},
                "catalog_not_found",
            ),
            (
                "refresh_bigquery_subscription_status",
                {"catalog_key": "kumo", "subscriber_principal": "user:nobody@example.com"},
                "subscriber_not_found",
            ),
        ],
    )
    def test_a_failure_of_a_tool_is_a_value(
        self, sandbox: Sandbox, tool: str, arguments: dict[str, Any], error: str
    ) -> None:
        sandbox.hub.share("kumo")
        register(sandbox)
        assert value(sandbox, tool, **arguments)["error"] == error
        assert sandbox.hub.calls[-1].outcome == "error"
        assert sandbox.hub.calls[-1].arguments == arguments


class TestLogin:
    def test_of_concurrent_refreshes_one_gets_the_token_that_replaces_it(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.hub.rotates_refresh_tokens = True
        together, token = threading.Barrier(8), sandbox.hub.refresh_token

        def try_it(_: int) -> int:
            together.wait(timeout=SECONDS)
            return exchanged(sandbox, token).status_code

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(try_it, range(8))) == [200] + [400] * 7
        renewed = exchanged(sandbox, sandbox.hub.refresh_token).json()["refresh_token"]
        assert renewed == sandbox.hub.refresh_token != token

    async def test_the_official_client_registers_logs_in_and_refreshes(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.hub.rotates_refresh_tokens = True
        browser = _Browser()
        redirect = AnyUrl("http://127.0.0.1:9/callback")
        metadata = OAuthClientMetadata(redirect_uris=[redirect], token_endpoint_auth_method="none")
        provider = OAuthClientProvider(
            sandbox.hub.mcp_url,
            metadata,
            browser,
            redirect_handler=browser.open,
            callback_handler=browser.come_back,
        )
        async with httpx2.AsyncClient(auth=provider, timeout=SECONDS) as http:
            for _ in range(2):
                address = streamable_http_client(sandbox.hub.mcp_url, http_client=http)
                async with Client(address) as client:
                    assert not (await client.call_tool(SUBSCRIBERS, {})).is_error
                provider.context.token_expiry_time = 1  # long ago
        grants = [
            each.arguments["grant_type"] for each in sandbox.hub.calls if each.surface == "token"
        ]
        assert grants == ["authorization_code", "refresh_token"]
        assert browser.opened == 1


class _Browser:
    """A browser that follows the login page's redirect, and the storage of the official client."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None
        self.opened = 0

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info

    async def open(self, url: str) -> None:
        async with httpx.AsyncClient() as browser:
            location = (await browser.get(url)).headers["location"]
        self.redirected = parse_qs(urlsplit(location).query)
        self.opened += 1

    async def come_back(self) -> AuthorizationCodeResult:
        (code,), (state,) = self.redirected["code"], self.redirected["state"]
        return AuthorizationCodeResult(code=code, state=state)


class TestLife:
    def test_addresses_are_in_the_environment_and_known_once_it_runs(self) -> None:
        sandbox = Sandbox(catalogs=0, hub=True)
        with pytest.raises(RuntimeError, match="use it in a `with`"):
            _ = sandbox.hub.endpoint
        with pytest.raises(RuntimeError, match="has no hub: make it with"):
            _ = Sandbox(catalogs=0).hub
        with sandbox:
            hub, environment = sandbox.hub, sandbox.environment
            assert environment["OCTOGEN_MCP_URL"] == hub.mcp_url
            assert environment["OCTOGEN_MCP_TOKEN_ENDPOINT"] == hub.token_endpoint
            assert environment["OCTOGEN_MCP_CLIENT_ID"] == hub.client_id
            assert environment["OCTOGEN_MCP_REFRESH_TOKEN"] == hub.refresh_token
            assert environment["ANALYTICS_HUB_EMULATOR_HOST"] == hub.endpoint
            assert sandbox.base_url == f"{hub.authorization_server}/v1"
