"""The hub of the sandbox, as Google's client, the client of the `mcp` package and HTTP see it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
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
from mcp.shared.exceptions import MCPError
from pydantic import AnyUrl

from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub_calls import (
    PRINCIPAL,
    PROJECT,
    SECONDS,
    Google,
    called,
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

    def test_lists_come_in_pages(self, sandbox: Sandbox, google: Google) -> None:
        names = [sandbox.hub.share(f"catalog-{number}") for number in range(7)]
        listed = google.listings(sandbox.hub.exchange, page_size=3)
        assert [listing.name for listing in listed] == names
        for number, name in enumerate(names):
            google.subscribe(name, f"dataset_{number}")
        assert len(google.subscriptions(page_size=2)) == 7
        assert outcomes(sandbox, "ListListings") == ["OK"] * 3
        assert outcomes(sandbox, "ListSubscriptions") == ["OK"] * 4

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

    def test_a_subscription_names_the_project_by_its_number(
        self, sandbox: Sandbox, google: Google
    ) -> None:
        name = sandbox.hub.share("northpeak")
        by_number = google.subscribe(name).listing
        _, project, *rest = by_number.split("/")
        assert project.isdecimal()
        assert rest == name.split("/")[2:]
        assert google.client.get_listing(name=by_number, timeout=SECONDS).name == name

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

    def test_of_concurrent_subscriptions_one_is_made(
        self, sandbox: Sandbox, google: Google
    ) -> None:
        name = sandbox.hub.share("northpeak")

        def subscribe(_: int) -> bool:
            try:
                return bool(google.subscribe(name))
            except exceptions.AlreadyExists:
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(subscribe, range(8))) == [False] * 7 + [True]

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

    def test_a_removed_listing_is_gone_and_may_be_shared_again(
        self, sandbox: Sandbox, google: Google
    ) -> None:
        name = sandbox.hub.share("northpeak")
        google.subscribe(name)
        sandbox.hub.remove_listing("northpeak")
        assert google.listings(sandbox.hub.exchange) == []
        assert not google.may_subscribe(name)
        with pytest.raises(exceptions.NotFound):
            google.client.get_listing(name=name, timeout=SECONDS)
        assert google.subscriptions()[0].state == State.STATE_INACTIVE
        assert sandbox.hub.share("northpeak") == name
        assert len(google.listings(sandbox.hub.exchange)) == 1


class TestSharing:
    def test_publishers_locations_and_exchanges_are_apart(
        self, sandbox: Sandbox, google: Google
    ) -> None:
        sandbox.hub.share("northpeak")
        theirs = sandbox.hub.share(
            "kumo", project="somebody-else", location="eu", exchange="own", listing_id="northpeak"
        )
        assert theirs == "projects/somebody-else/locations/eu/dataExchanges/own/listings/northpeak"
        assert [each.name for each in google.listings(theirs.rpartition("/listings/")[0])] == [
            theirs
        ]
        assert google.subscribe(theirs, location="eu").state == State.STATE_ACTIVE
        assert len(google.listings(sandbox.hub.exchange)) == 1

    def test_a_name_is_shared_once(self, sandbox: Sandbox) -> None:
        sandbox.hub.share("north.peak")
        with pytest.raises(ValueError, match=r"'north\.peak' is shared as .*north_peak: remove"):
            sandbox.hub.share("north.peak")
        with pytest.raises(ValueError, match=r"'north_peak' cannot be shared as"):
            sandbox.hub.share("north_peak")

    @pytest.mark.parametrize("change", ["grant_access", "make_stale", "listing_resource"])
    def test_a_catalog_that_was_never_shared_is_an_error(
        self, sandbox: Sandbox, change: str
    ) -> None:
        sandbox.hub.share("kumo")
        with pytest.raises(LookupError, match=r"'acme' is not shared; shared: kumo: share it"):
            getattr(sandbox.hub, change)("acme")


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

    def test_shared_catalogs_are_listed(self, sandbox: Sandbox) -> None:
        assert value(sandbox, LISTINGS) == []
        names = [sandbox.hub.share(catalog) for catalog in ("kumo", "strada")]
        listed = value(sandbox, LISTINGS)
        assert [each["listingResource"] for each in listed] == names
        (strada,) = value(sandbox, LISTINGS, catalogs=["strada"])
        assert strada["catalogKey"] == "strada"
        sandbox.hub.remove_listing("strada")
        assert len(value(sandbox, LISTINGS)) == 1

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

    @pytest.mark.parametrize(
        ("tool", "arguments"),
        [("drop_tables", {}), (LISTINGS, {"catalog": "kumo"}), (LISTINGS, {"catalogs": 3})],
    )
    def test_a_wrong_call_is_an_error(
        self, sandbox: Sandbox, tool: str, arguments: dict[str, Any]
    ) -> None:
        assert called(sandbox, tool, **arguments).is_error
        assert outcomes(sandbox, tool) == ["error"]

    def test_calls_are_taken_from_the_rate_limit_of_the_rest_api(self, sandbox: Sandbox) -> None:
        sandbox.set_rate_limit(2)
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        shop = f"{sandbox.base_url}/domains/{sandbox.hosts[0]}"
        assert httpx.get(shop, headers=headers).status_code == 200
        value(sandbox, SUBSCRIBERS)
        with pytest.raises(MCPError, match="rate_limit_exceeded") as caught:
            called(sandbox, SUBSCRIBERS)
        assert (caught.value.error.code, caught.value.error.data) == (-32029, {"retry_after": 30})
        assert httpx.get(shop, headers=headers).status_code == 429
        assert outcomes(sandbox, SUBSCRIBERS) == ["OK", "-32029"]


class TestLogin:
    def test_without_a_token_it_is_a_401_that_says_where_to_get_one(self, sandbox: Sandbox) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            response = httpx.post(sandbox.hub.mcp_url, json={}, headers=headers)
            assert response.status_code == 401
            challenge = response.headers["www-authenticate"]
            url = challenge.partition('resource_metadata="')[2].rstrip('"')
            metadata = httpx.get(url).json()
            assert metadata["resource"] == sandbox.hub.mcp_url
            assert metadata["authorization_servers"] == [sandbox.hub.authorization_server]

    def test_a_refresh_token_is_exchanged_for_an_access_token(self, sandbox: Sandbox) -> None:
        tokens = exchanged(sandbox, sandbox.hub.refresh_token).json()
        assert tokens["expires_in"] == 300
        assert tokens.get("refresh_token") is None
        assert not called(sandbox, SUBSCRIBERS, token=tokens["access_token"]).is_error
        assert exchanged(sandbox, sandbox.hub.refresh_token).status_code == 200
        assert exchanged(sandbox, "wrong").json()["error"] == "invalid_grant"
        assert exchanged(sandbox, sandbox.hub.refresh_token, "nobody").status_code == 401
        shown = {"grant_type": "refresh_token", "client_id": sandbox.hub.client_id}
        logged = [call for call in sandbox.hub.calls if call.surface == "token"]
        assert [call.arguments for call in logged] == [shown] * 3
        assert [call.outcome for call in logged] == ["OK", "OK", "400"]

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

    def test_it_can_run_again_and_logs_no_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        sandbox = Sandbox(catalogs=0, hub=True)
        handlers = logging.getLogger().handlers[:]
        for number in range(2):
            with sandbox:
                sandbox.hub.share(f"catalog-{number}")
                assert len(Google(sandbox).listings(sandbox.hub.exchange)) == number + 1
                assert len(value(sandbox, LISTINGS)) == number + 1
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert logging.getLogger().handlers == handlers

    def test_it_is_on_the_next_port(self) -> None:
        # Below the ports that other connections of this machine get.
        start = 20_000 + os.getpid() % 10_000
        for port in range(start, start + 100):
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
                with (
                    pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port + 1}"),
                    Sandbox(catalogs=0, hub=True, port=port),
                ):
                    pass
                break
        with Sandbox(catalogs=0, hub=True, port=port) as sandbox:
            assert sandbox.hub.endpoint == f"127.0.0.1:{port + 1}"
