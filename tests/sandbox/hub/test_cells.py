"""The cells and their statuses."""

import pytest

from octogen_dagster.sandbox.hub.cells import HubCells, ToolFailure
from octogen_dagster.sandbox.hub.state import ON_COMMAND, GrantAfter
from octogen_dagster.sandbox.hub.store import HubStore
from tests.sandbox.hub.calls import PRINCIPAL, PROJECT
from tests.sandbox.hub.stores import share, subscribe


def status(cells: HubCells, number: int = 0) -> tuple[str, str | None]:
    cell = cells.list_subscribers()["cells"][number]
    return cell["status"], cell["reasonCode"]


def test_access_arrives_after_some_reads(store: HubStore, cells: HubCells) -> None:
    share(store, grant=GrantAfter(reads=3))
    cells.list_subscribers()  # without a subscriber there is no cell to read
    assert cells.register(PROJECT, PRINCIPAL)["cells"][0]["status"] == "preparing"
    assert status(cells) == ("preparing", "preparing")
    assert cells.refresh("kumo", PRINCIPAL)["status"] == "preparing"
    assert status(cells) == ("awaiting_subscription", None)


def test_a_cell_lives_from_preparing_to_active(store: HubStore, cells: HubCells) -> None:
    cells.register(PROJECT, PRINCIPAL)
    listing = share(store, grant=ON_COMMAND)
    assert status(cells) == ("preparing", "preparing")
    store.grant_access("kumo")
    assert status(cells) == ("awaiting_subscription", None)
    subscription = subscribe(store, listing)
    assert status(cells) == ("awaiting_subscription", None)
    assert cells.refresh("kumo", PRINCIPAL)["status"] == "active"
    assert status(cells) == ("active", None)
    store.make_stale("kumo")
    assert status(cells) == ("source_stale", None)
    store.refresh_subscription(subscription.name)
    assert status(cells) == ("active", None)


def test_a_deleted_subscription_shows_after_the_next_refresh(
    store: HubStore, cells: HubCells
) -> None:
    cells.register(PROJECT, PRINCIPAL)
    subscription = subscribe(store, share(store))
    cells.refresh("kumo", PRINCIPAL)
    store.delete_subscription(subscription.name)
    assert status(cells) == ("active", None)
    assert cells.refresh("kumo", PRINCIPAL)["status"] == "awaiting_subscription"


def test_a_revoked_access_shows_at_once(store: HubStore, cells: HubCells) -> None:
    cells.register(PROJECT, PRINCIPAL)
    subscribe(store, share(store))
    cells.refresh("kumo", PRINCIPAL)
    store.revoke_access("kumo")
    assert status(cells) == ("preparing", "scope_revoked")
    store.grant_access("kumo")
    assert status(cells) == ("awaiting_subscription", None)
    store.remove_listing("kumo")
    assert status(cells) == ("removing", "removing")
    assert cells.list_listings(None) == []
    with pytest.raises(ToolFailure, match="catalog_not_granted"):
        cells.list_listings(["kumo"])


def test_a_cell_has_all_fields_of_the_contract(store: HubStore, cells: HubCells) -> None:
    listing = share(store, "north-peak")
    registered = cells.register(PROJECT, PRINCIPAL)
    subscriber_id = registered["subscriber"]["subscriberId"]
    assert registered["subscriber"] == {
        "subscriberId": subscriber_id,
        "subscriberProjectId": PROJECT,
        "subscriberPrincipal": PRINCIPAL,
        "desiredState": "enabled",
    }
    assert registered["cells"] == [
        {
            "subscriberId": subscriber_id,
            "catalogKey": "north-peak",
            "status": "awaiting_subscription",
            "reasonCode": None,
            "listingResource": str(listing.name),
            "linkedDatasetSuggestion": "octogen_north_peak",
            "location": "us",
            "sampleQuery": (
                f"SELECT * FROM `{PROJECT}.octogen_north_peak.products_current_v1` LIMIT 10;"
            ),
            "shareSchema": "exported_product_view",
            "schemaVersion": "v1",
        }
    ]


def test_each_subscriber_has_cells_of_its_own(store: HubStore, cells: HubCells) -> None:
    listing = share(store)
    cells.register(PROJECT, PRINCIPAL)
    cells.register("another-project", PRINCIPAL)
    subscribe(store, listing, project="another-project")
    cells.refresh("kumo", PRINCIPAL)
    assert status(cells, 0) == ("awaiting_subscription", None)
    assert status(cells, 1) == ("active", None)


def test_registering_twice_changes_nothing(store: HubStore, cells: HubCells) -> None:
    share(store)
    assert cells.register(PROJECT, PRINCIPAL) == cells.register(PROJECT, PRINCIPAL)
    cells.disable(PRINCIPAL)
    again = cells.register(PROJECT, PRINCIPAL)["subscriber"]
    assert again["desiredState"] == "disabled"
    assert status(cells) == ("removing", "removing")
    assert cells.list_subscribers()["subscribers"] == [again]


@pytest.mark.parametrize(
    ("project", "principal", "field"),
    [
        ("", PRINCIPAL, "subscriberProjectId"),
        ("My Project", PRINCIPAL, "subscriberProjectId"),
        (PROJECT, "", "subscriberPrincipal"),
        (PROJECT, "reader@reader-project.iam.gserviceaccount.com", "subscriberPrincipal"),
    ],
)
def test_an_invalid_subscriber_is_refused(
    cells: HubCells, project: str, principal: str, field: str
) -> None:
    with pytest.raises(ToolFailure, match=field) as caught:
        cells.register(project, principal)
    assert caught.value.error == "invalid_request"


def test_an_unknown_subscriber_or_catalog_cannot_be_refreshed(cells: HubCells) -> None:
    with pytest.raises(ToolFailure, match="is not registered") as caught:
        cells.refresh("kumo", PRINCIPAL)
    assert caught.value.error == "subscriber_not_found"
    cells.register(PROJECT, PRINCIPAL)
    with pytest.raises(ToolFailure, match="'kumo' is not shared") as caught:
        cells.refresh("kumo", PRINCIPAL)
    assert caught.value.error == "catalog_not_found"
    with pytest.raises(LookupError, match="user:x is not registered"):
        cells.disable("user:x")
