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
