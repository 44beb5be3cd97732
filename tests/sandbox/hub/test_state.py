"""What exists in Analytics Hub and what Octogen knows of it, without servers."""

from typing import Any

import pytest

from octogen_dagster.sandbox.hub.cells import HubCells, ToolFailure
from octogen_dagster.sandbox.hub.faults import GRPC_KINDS, HTTP_KINDS, TOKEN, HubFault, HubFaults
from octogen_dagster.sandbox.hub.log import HubCall, HubLog
from octogen_dagster.sandbox.hub.names import (
    ExchangeName,
    ListingName,
    Refusal,
    project_number,
)
from octogen_dagster.sandbox.hub.state import (
    AT_ONCE,
    ON_COMMAND,
    Destination,
    GrantAfter,
    HubState,
    Listing,
    Subscription,
)

EXCHANGE = ExchangeName("octogen-sandbox", "us", "catalogs")
READER = "reader-project"
PRINCIPAL = "serviceAccount:reader@reader-project.iam.gserviceaccount.com"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> HubState:
    return HubState(clock=clock)


@pytest.fixture
def cells(state: HubState) -> HubCells:
    return HubCells(state)


def share(state: HubState, catalog: str = "kumo", grant: GrantAfter = AT_ONCE) -> Listing:
    return state.share(catalog, grant, EXCHANGE, None)


def subscribe(
    state: HubState, listing: Listing, dataset: str = "linked", project: str = READER
) -> Subscription:
    return state.subscribe(str(listing.name), Destination(project, dataset, "us"))


def refused(state: HubState, listing: Listing, **destination: Any) -> str:
    wanted = {"project": READER, "dataset": "linked", "location": "us", **destination}
    with pytest.raises(Refusal) as caught:
        state.subscribe(str(listing.name), Destination(**wanted))
    return caught.value.code


def status(cells: HubCells, number: int = 0) -> tuple[str, str | None]:
    cell = cells.list_subscribers()["cells"][number]
    return cell["status"], cell["reasonCode"]


class TestNames:
    def test_a_listing_id_is_made_of_the_catalog_s_key(self, state: HubState) -> None:
        assert share(state, "fjord.field/ünï-x").name.listing == "fjord_field__n_-x"

    def test_a_name_with_the_project_s_number_is_the_same(self, state: HubState) -> None:
        listing = share(state)
        by_number = str(listing.name).replace("octogen-sandbox", project_number("octogen-sandbox"))
        assert by_number != str(listing.name)
        assert state.listing_name(by_number) == listing.name
        assert state.get_listing(by_number) == listing
        assert state.get_exchange(by_number.partition("/listings/")[0]) == EXCHANGE
        assert state.exchanges(project_number("octogen-sandbox"), "us") == [EXCHANGE]

    @pytest.mark.parametrize("name", ["", "kumo", "projects/p/locations/us/dataExchanges/e"])
    def test_what_is_no_name_is_refused(self, state: HubState, name: str) -> None:
        with pytest.raises(Refusal, match=f"Invalid listing resource name: '{name}'") as caught:
            state.get_listing(name)
        assert caught.value.code == "INVALID_ARGUMENT"

    def test_numbers_of_projects_have_twelve_digits_and_differ(self) -> None:
        numbers = {project_number(f"project-{n}") for n in range(1000)}
        assert len(numbers) == 1000
        assert {len(number) for number in numbers} == {12}


class TestShare:
    def test_a_catalog_is_shared_once(self, state: HubState) -> None:
        share(state)
        with pytest.raises(ValueError, match=r"'kumo' is shared already, as projects/octogen-sand"):
            share(state)

    def test_two_catalogs_cannot_have_one_listing(self, state: HubState) -> None:
        share(state, "a/b")
        with pytest.raises(ValueError, match=r"the listing of 'a/b'; give another listing_id"):
            share(state, "a.b")
        assert state.share("a.b", AT_ONCE, EXCHANGE, "other").name.listing == "other"

    def test_two_projects_can_have_the_same_listing_id(self, state: HubState) -> None:
        other = ExchangeName("somebody-else", "us", "catalogs")
        first, second = share(state), state.share("kumo 2", AT_ONCE, other, "kumo")
        assert state.get_listing(str(first.name)).catalog == "kumo"
        assert state.get_listing(str(second.name)).catalog == "kumo 2"

    def test_a_listing_id_has_no_slash(self, state: HubState) -> None:
        with pytest.raises(ValueError, match="'a/b' is no listing id"):
            state.share("kumo", AT_ONCE, EXCHANGE, "a/b")

    def test_a_removed_catalog_can_be_shared_again(self, state: HubState) -> None:
        old = share(state)
        share(state, "strada")
        state.remove_listing("kumo")
        assert [listing.catalog for listing in state.listings(EXCHANGE)] == ["strada"]
        new = state.share("kumo", AT_ONCE, EXCHANGE, "new")
        assert [listing.catalog for listing in state.listings(EXCHANGE)] == ["strada", "kumo"]
        assert state.get_listing(str(new.name)) == new
        with pytest.raises(Refusal, match="Listing not found"):
            state.get_listing(str(old.name))

    def test_what_was_never_shared_cannot_be_changed(self, state: HubState) -> None:
        share(state)
        changes = (
            state.grant_access,
            state.revoke_access,
            state.make_stale,
            state.remove_listing,
            state.listing_of,
        )
        for change in changes:
            with pytest.raises(LookupError, match="catalog 'strada' is not shared; shared: kumo"):
                change("strada")


class TestGrants:
    def test_at_once(self, state: HubState) -> None:
        assert subscribe(state, share(state)).state == "STATE_ACTIVE"

    def test_after_denials(self, state: HubState) -> None:
        listing = share(state, grant=GrantAfter(denials=2))
        assert [refused(state, listing) for _ in range(2)] == ["PERMISSION_DENIED"] * 2
        subscribe(state, listing)

    def test_after_seconds(self, state: HubState, clock: Clock) -> None:
        listing = share(state, grant=GrantAfter(seconds=60))
        clock.now += 59.9
        assert refused(state, listing) == "PERMISSION_DENIED"
        clock.now += 0.1
        subscribe(state, listing)

    def test_after_reads(self, state: HubState, cells: HubCells) -> None:
        share(state, grant=GrantAfter(reads=3))
        cells.list_subscribers()  # without a subscriber there is no cell to read
        assert cells.register(READER, PRINCIPAL)["cells"][0]["status"] == "pending"
        assert status(cells) == ("pending", None)
        assert cells.refresh("kumo", PRINCIPAL)["status"] == "pending"
        assert status(cells) == ("awaiting_subscription", None)

    def test_whichever_comes_first(self, state: HubState, clock: Clock) -> None:
        listing = share(state, grant=GrantAfter(denials=5, seconds=10))
        assert refused(state, listing) == "PERMISSION_DENIED"
        clock.now += 10
        subscribe(state, listing)

    def test_on_command(self, state: HubState, clock: Clock) -> None:
        listing = share(state, grant=ON_COMMAND)
        clock.now += 1e9
        assert refused(state, listing) == "PERMISSION_DENIED"
        state.grant_access("kumo")
        subscribe(state, listing)

    def test_revoked_access_does_not_come_back_by_itself(self, state: HubState) -> None:
        listing = share(state)
        state.revoke_access("kumo")
        assert refused(state, listing) == "PERMISSION_DENIED"
        state.grant_access("kumo")
        subscribe(state, listing)


class TestSubscriptions:
    def test_refusals_come_in_the_order_in_which_they_are_found(self, state: HubState) -> None:
        listing = share(state, grant=GrantAfter(denials=1))
        assert refused(state, listing, dataset="not-an-id") == "INVALID_ARGUMENT"
        assert refused(state, listing, project="P") == "INVALID_ARGUMENT"
        assert refused(state, listing, location="eu") == "PERMISSION_DENIED"
        assert refused(state, listing, location="eu") == "INVALID_ARGUMENT"
        state.add_dataset(READER, "linked")
        assert refused(state, listing) == "ALREADY_EXISTS"
        state.remove_listing("kumo")
        assert refused(state, listing) == "NOT_FOUND"

    def test_locations_are_compared_without_case(self, state: HubState) -> None:
        listing = share(state)
        subscription = state.subscribe(str(listing.name), Destination(READER, "linked", "US"))
        assert subscription.location == "us"

    def test_a_dataset_id_is_taken_per_project(self, state: HubState) -> None:
        kumo, strada = share(state), share(state, "strada")
        subscribe(state, kumo)
        for listing in (kumo, strada):
            assert refused(state, listing) == "ALREADY_EXISTS"
        subscribe(state, strada, project="another-project")
        subscribe(state, kumo, dataset="LINKED")
        assert list(state.datasets(READER)) == ["linked", "LINKED"]

    def test_the_dataset_of_an_inactive_subscription_is_still_taken(self, state: HubState) -> None:
        listing = share(state)
        subscription = subscribe(state, listing)
        state.revoke_access("kumo")
        state.grant_access("kumo")
        assert state.get_subscription(subscription.name).state == "STATE_INACTIVE"
        assert refused(state, listing) == "ALREADY_EXISTS"
        state.delete_subscription(subscription.name)
        assert state.datasets(READER) == {}
        assert subscribe(state, listing).name != subscription.name

    def test_states(self, state: HubState) -> None:
        listing = share(state)
        with pytest.raises(LookupError, match="'kumo' has no active subscription to make stale"):
            state.make_stale("kumo")
        name = subscribe(state, listing).name
        state.make_stale("kumo")
        assert state.get_subscription(name).state == "STATE_STALE"
        assert state.refresh_subscription(name).state == "STATE_ACTIVE"
        assert state.revoke_subscription(name).state == "STATE_INACTIVE"
        with pytest.raises(Refusal, match="is not active") as caught:
            state.refresh_subscription(name)
        assert caught.value.code == "FAILED_PRECONDITION"

    def test_only_the_subscriptions_of_the_catalog_change(self, state: HubState) -> None:
        kumo = subscribe(state, share(state))
        strada = subscribe(state, share(state, "strada"), "other")
        state.remove_listing("strada")
        assert state.get_subscription(kumo.name) == kumo
        assert state.get_subscription(strada.name).state == "STATE_INACTIVE"

    def test_ordinary_datasets(self, state: HubState) -> None:
        state.add_dataset(READER, "mine")
        subscription = subscribe(state, share(state))
        assert state.datasets(READER) == {"mine": None, "linked": subscription.name}
        with pytest.raises(ValueError, match="has a dataset 'linked' already"):
            state.add_dataset(READER, "linked")
        with pytest.raises(ValueError, match="'a-b' is no dataset id"):
            state.add_dataset(READER, "a-b")


class TestCells:
    def test_a_cell_lives_from_pending_to_active(self, state: HubState, cells: HubCells) -> None:
        cells.register(READER, PRINCIPAL)
        listing = share(state, grant=ON_COMMAND)
        assert status(cells) == ("pending", None)
        state.grant_access("kumo")
        assert status(cells) == ("awaiting_subscription", None)
        subscription = subscribe(state, listing)
        assert status(cells) == ("awaiting_subscription", None)
        assert cells.refresh("kumo", PRINCIPAL)["status"] == "active"
        assert status(cells) == ("active", None)
        state.make_stale("kumo")
        assert status(cells) == ("source_stale", None)
        state.refresh_subscription(subscription.name)
        assert status(cells) == ("active", None)

    def test_what_the_subscriber_deletes_is_seen_at_the_next_look(
        self, state: HubState, cells: HubCells
    ) -> None:
        cells.register(READER, PRINCIPAL)
        subscription = subscribe(state, share(state))
        cells.refresh("kumo", PRINCIPAL)
        state.delete_subscription(subscription.name)
        assert status(cells) == ("active", None)
        assert cells.refresh("kumo", PRINCIPAL)["status"] == "awaiting_subscription"

    def test_what_the_publisher_takes_away_is_seen_at_once(
        self, state: HubState, cells: HubCells
    ) -> None:
        cells.register(READER, PRINCIPAL)
        subscribe(state, share(state))
        cells.refresh("kumo", PRINCIPAL)
        state.revoke_access("kumo")
        assert status(cells) == ("pending", "scope_revoked")
        state.grant_access("kumo")
        assert status(cells) == ("awaiting_subscription", None)
        state.remove_listing("kumo")
        assert status(cells) == ("pending", "removing")
        assert cells.list_listings(None) == []

    def test_a_cell_has_everything_of_the_contract(self, state: HubState, cells: HubCells) -> None:
        listing = share(state, "north-peak")
        answer = cells.register(READER, PRINCIPAL)
        subscriber_id = answer["subscriber"]["subscriberId"]
        assert answer["subscriber"] == {
            "subscriberId": subscriber_id,
            "subscriberProjectId": READER,
            "subscriberPrincipal": PRINCIPAL,
            "desiredState": "enabled",
        }
        assert answer["cells"] == [
            {
                "subscriberId": subscriber_id,
                "catalogKey": "north-peak",
                "status": "awaiting_subscription",
                "reasonCode": None,
                "listingResource": str(listing.name),
                "linkedDatasetSuggestion": "octogen_north_peak",
                "location": "us",
                "sampleQuery": (
                    f"SELECT * FROM `{READER}.octogen_north_peak.products_current_v1` LIMIT 10;"
                ),
                "shareSchema": "exported_product_view",
                "schemaVersion": "v1",
            }
        ]

    def test_each_subscriber_has_cells_of_its_own(self, state: HubState, cells: HubCells) -> None:
        listing = share(state)
        cells.register(READER, PRINCIPAL)
        cells.register("another-project", PRINCIPAL)
        subscribe(state, listing, project="another-project")
        cells.refresh("kumo", PRINCIPAL)
        assert status(cells, 0) == ("awaiting_subscription", None)
        assert status(cells, 1) == ("active", None)

    def test_registering_twice_changes_nothing(self, state: HubState, cells: HubCells) -> None:
        share(state)
        assert cells.register(READER, PRINCIPAL) == cells.register(READER, PRINCIPAL)
        cells.disable(PRINCIPAL)
        again = cells.register(READER, PRINCIPAL)["subscriber"]
        assert again["desiredState"] == "disabled"
        assert cells.list_subscribers()["subscribers"] == [again]

    @pytest.mark.parametrize(
        ("project", "principal", "field"),
        [
            ("", PRINCIPAL, "subscriberProjectId"),
            ("My Project", PRINCIPAL, "subscriberProjectId"),
            (READER, "", "subscriberPrincipal"),
            (READER, "reader@reader-project.iam.gserviceaccount.com", "subscriberPrincipal"),
        ],
    )
    def test_what_is_no_subscriber_is_refused(
        self, cells: HubCells, project: str, principal: str, field: str
    ) -> None:
        with pytest.raises(ToolFailure, match=field) as caught:
            cells.register(project, principal)
        assert caught.value.error == "invalid_request"

    def test_what_is_not_known_cannot_be_looked_at(self, cells: HubCells) -> None:
        with pytest.raises(ToolFailure, match="is not registered") as caught:
            cells.refresh("kumo", PRINCIPAL)
        assert caught.value.error == "subscriber_not_found"
        cells.register(READER, PRINCIPAL)
        with pytest.raises(ToolFailure, match="'kumo' is not shared") as caught:
            cells.refresh("kumo", PRINCIPAL)
        assert caught.value.error == "catalog_not_found"
        with pytest.raises(LookupError, match="user:x is not registered"):
            cells.disable("user:x")


class TestFaults:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"kind": "flood"}, "unknown fault 'flood'"),
            ({"kind": "latency", "value": -1}, "latency needs seconds"),
            ({"kind": "status", "value": 503}, "status needs a gRPC code"),
            ({"kind": "status", "value": "OK"}, "status needs a gRPC code"),
            ({"kind": "http_status", "value": 200}, "http_status needs a number from 400"),
            ({"kind": "tool_error"}, "tool_error needs an error code"),
            ({"kind": "rate_limit"}, "rate_limit needs seconds"),
            ({"kind": "cell", "value": {}}, "cell needs a mapping of fields"),
            ({"kind": "html", "value": 1}, "html takes no value"),
            ({"kind": "html", "times": 0}, "times must be 1 or more"),
            ({"kind": "html", "catalog": "kumo"}, "catalog goes with cell, not with html"),
        ],
    )
    def test_nonsense_is_refused(self, arguments: dict[str, Any], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            HubFault(**arguments)

    def test_storms_come_one_after_the_other_and_latency_on_top(self) -> None:
        slow, storm = HubFault("latency", 1), HubFault("status", "INTERNAL", times=2)
        lost = HubFault("lost_answer", method="GetListing", times=1)
        faults = HubFaults()
        for fault in (slow, storm, lost):
            faults.inject(fault)
        assert faults.hit("ListListings", GRPC_KINDS) == [slow, storm]
        assert faults.hit("GetListing", GRPC_KINDS) == [slow, storm]
        assert faults.hit("ListListings", GRPC_KINDS) == [slow]
        assert faults.hit("GetListing", GRPC_KINDS) == [slow, lost]
        faults.clear()
        assert faults.hit("GetListing", GRPC_KINDS) == []

    def test_the_token_endpoint_is_hit_by_name_only(self) -> None:
        anything, token = HubFault("html"), HubFault("html", method=TOKEN)
        faults = HubFaults()
        faults.inject(anything)
        assert faults.hit(TOKEN, HTTP_KINDS) == []
        faults.inject(token)
        assert faults.hit(TOKEN, HTTP_KINDS) == [token]
        assert faults.hit("initialize", HTTP_KINDS) == [anything]


def test_the_log_keeps_the_latest_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octogen_dagster.sandbox.hub.log._LOGGED_CALLS", 2)
    log = HubLog()
    ids = [log.begin("grpc", method, {}) for method in "abc"]
    log.end(ids[0], "OK")
    log.end(ids[2], "OK")
    assert log.calls() == [HubCall("grpc", "b", {}), HubCall("grpc", "c", {}, "OK")]


def test_a_listing_name_reads_what_it_writes() -> None:
    name = ListingName("p", "us", "e", "l")
    assert ListingName.parse(str(name)) == name
    assert ExchangeName.parse(str(name.in_exchange)) == name.in_exchange
