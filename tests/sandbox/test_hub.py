"""The hub of the sandbox, as Google's client, the client of the `mcp` package and HTTP see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.api_core import exceptions
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub_calls import (
    PRINCIPAL,
    PROJECT,
    SECONDS,
    Google,
    refresh,
    register,
    statuses,
)

State = ah.Subscription.State


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox with a hub, whose REST API has one catalog."""
    with Sandbox(catalogs=["northpeak"], products=5, hub=True) as running:
        yield running


@pytest.fixture
def google(sandbox: Sandbox) -> Google:
    return Google(sandbox)


class TestAnalyticsHub:
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
