"""The store: listings, the right to subscribe, and subscriptions."""

import pytest

from octogen_dagster.sandbox.hub.names import ExchangeName, Refusal, project_number
from octogen_dagster.sandbox.hub.state import AT_ONCE, ON_COMMAND, Destination, GrantAfter
from octogen_dagster.sandbox.hub.store import HubStore
from tests.sandbox.clock import FakeClock
from tests.sandbox.hub.calls import PROJECT
from tests.sandbox.hub.stores import EXCHANGE, refusal_code, share, subscribe


class TestNames:
    def test_a_listing_id_is_made_of_the_catalog_s_key(self, store: HubStore) -> None:
        assert share(store, "fjord.field/ünï-x").name.listing == "fjord_field__n_-x"

    def test_a_name_with_the_project_s_number_is_the_same(self, store: HubStore) -> None:
        listing = share(store)
        by_number = str(listing.name).replace("octogen-sandbox", project_number("octogen-sandbox"))
        assert by_number != str(listing.name)
        assert store.listing_name(by_number) == listing.name
        assert store.get_listing(by_number) == listing
        assert store.get_exchange(by_number.partition("/listings/")[0]) == EXCHANGE
        assert store.exchanges(project_number("octogen-sandbox"), "us") == [EXCHANGE]

    @pytest.mark.parametrize("name", ["", "kumo", "projects/p/locations/us/dataExchanges/e"])
    def test_an_invalid_name_is_refused(self, store: HubStore, name: str) -> None:
        with pytest.raises(Refusal, match=f"Invalid listing resource name: '{name}'") as caught:
            store.get_listing(name)
        assert caught.value.code == "INVALID_ARGUMENT"


class TestShare:
    def test_a_catalog_is_shared_once(self, store: HubStore) -> None:
        share(store)
        with pytest.raises(ValueError, match=r"'kumo' is shared already, as projects/octogen-sand"):
            share(store)

    def test_two_catalogs_cannot_have_one_listing(self, store: HubStore) -> None:
        share(store, "a/b")
        with pytest.raises(ValueError, match=r"the listing of 'a/b'; give another listing_id"):
            share(store, "a.b")
        assert store.share("a.b", AT_ONCE, EXCHANGE, "other").name.listing == "other"

    def test_two_projects_can_have_the_same_listing_id(self, store: HubStore) -> None:
        other = ExchangeName("somebody-else", "us", "catalogs")
        first, second = share(store), store.share("kumo 2", AT_ONCE, other, "kumo")
        assert store.get_listing(str(first.name)).catalog == "kumo"
        assert store.get_listing(str(second.name)).catalog == "kumo 2"

    def test_a_listing_id_has_no_slash(self, store: HubStore) -> None:
        with pytest.raises(ValueError, match="'a/b' is no listing id"):
            store.share("kumo", AT_ONCE, EXCHANGE, "a/b")

    def test_a_removed_catalog_can_be_shared_again(self, store: HubStore) -> None:
        old = share(store)
        share(store, "strada")
        store.remove_listing("kumo")
        assert [listing.catalog for listing in store.listings(EXCHANGE)] == ["strada"]
        new = store.share("kumo", AT_ONCE, EXCHANGE, "new")
        assert [listing.catalog for listing in store.listings(EXCHANGE)] == ["strada", "kumo"]
        assert store.get_listing(str(new.name)) == new
        with pytest.raises(Refusal, match="Listing not found"):
            store.get_listing(str(old.name))

    def test_what_was_never_shared_cannot_be_changed(self, store: HubStore) -> None:
        share(store)
        changes = (
            store.grant_access,
            store.revoke_access,
            store.make_stale,
            store.remove_listing,
            store.listing_of,
        )
        for change in changes:
            with pytest.raises(LookupError, match="catalog 'strada' is not shared; shared: kumo"):
                change("strada")


class TestGrants:
    def test_at_once(self, store: HubStore) -> None:
        assert subscribe(store, share(store)).state == "STATE_ACTIVE"

    def test_after_denials(self, store: HubStore) -> None:
        listing = share(store, grant=GrantAfter(denials=2))
        assert [refusal_code(store, listing) for _ in range(2)] == ["PERMISSION_DENIED"] * 2
        subscribe(store, listing)

    def test_after_seconds(self, store: HubStore, clock: FakeClock) -> None:
        listing = share(store, grant=GrantAfter(seconds=60))
        clock.now += 59.9
        assert refusal_code(store, listing) == "PERMISSION_DENIED"
        clock.now += 0.1
        subscribe(store, listing)

    def test_whichever_comes_first(self, store: HubStore, clock: FakeClock) -> None:
        listing = share(store, grant=GrantAfter(denials=5, seconds=10))
        assert refusal_code(store, listing) == "PERMISSION_DENIED"
        clock.now += 10
        subscribe(store, listing)

    def test_on_command(self, store: HubStore, clock: FakeClock) -> None:
        listing = share(store, grant=ON_COMMAND)
        clock.now += 1e9
        assert refusal_code(store, listing) == "PERMISSION_DENIED"
        store.grant_access("kumo")
        subscribe(store, listing)

    def test_revoked_access_does_not_come_back_by_itself(self, store: HubStore) -> None:
        listing = share(store)
        store.revoke_access("kumo")
        assert refusal_code(store, listing) == "PERMISSION_DENIED"
        store.grant_access("kumo")
        subscribe(store, listing)


class TestSubscriptions:
    def test_refusals_come_in_the_order_in_which_they_are_found(self, store: HubStore) -> None:
        listing = share(store, grant=GrantAfter(denials=1))
        assert refusal_code(store, listing, dataset="not-an-id") == "INVALID_ARGUMENT"
        assert refusal_code(store, listing, project="P") == "INVALID_ARGUMENT"
        assert refusal_code(store, listing, location="eu") == "PERMISSION_DENIED"
        assert refusal_code(store, listing, location="eu") == "INVALID_ARGUMENT"
        store.add_dataset(PROJECT, "linked")
        assert refusal_code(store, listing) == "ALREADY_EXISTS"
        store.remove_listing("kumo")
        assert refusal_code(store, listing) == "NOT_FOUND"

    def test_locations_are_compared_without_case(self, store: HubStore) -> None:
        listing = share(store)
        subscription = store.subscribe(str(listing.name), Destination(PROJECT, "linked", "US"))
        assert subscription.location == "us"

    def test_a_dataset_id_is_taken_per_project(self, store: HubStore) -> None:
        kumo, strada = share(store), share(store, "strada")
        subscribe(store, kumo)
        for listing in (kumo, strada):
            assert refusal_code(store, listing) == "ALREADY_EXISTS"
        subscribe(store, strada, project="another-project")
        subscribe(store, kumo, dataset="LINKED")
        assert list(store.datasets(PROJECT)) == ["linked", "LINKED"]

    def test_the_dataset_of_an_inactive_subscription_is_still_taken(self, store: HubStore) -> None:
        listing = share(store)
        subscription = subscribe(store, listing)
        store.revoke_access("kumo")
        store.grant_access("kumo")
        assert store.get_subscription(subscription.name).state == "STATE_INACTIVE"
        assert refusal_code(store, listing) == "ALREADY_EXISTS"
        store.delete_subscription(subscription.name)
        assert store.datasets(PROJECT) == {}
        assert subscribe(store, listing).name != subscription.name

    def test_states(self, store: HubStore) -> None:
        listing = share(store)
        with pytest.raises(LookupError, match="'kumo' has no active subscription to make stale"):
            store.make_stale("kumo")
        name = subscribe(store, listing).name
        store.make_stale("kumo")
        assert store.get_subscription(name).state == "STATE_STALE"
        assert store.refresh_subscription(name).state == "STATE_ACTIVE"
        assert store.revoke_subscription(name).state == "STATE_INACTIVE"
        with pytest.raises(Refusal, match="is not active") as caught:
            store.refresh_subscription(name)
        assert caught.value.code == "FAILED_PRECONDITION"

    def test_only_the_subscriptions_of_the_catalog_change(self, store: HubStore) -> None:
        kumo = subscribe(store, share(store))
        strada = subscribe(store, share(store, "strada"), "other")
        store.remove_listing("strada")
        assert store.get_subscription(kumo.name) == kumo
        assert store.get_subscription(strada.name).state == "STATE_INACTIVE"

    def test_ordinary_datasets(self, store: HubStore) -> None:
        store.add_dataset(PROJECT, "mine")
        subscription = subscribe(store, share(store))
        assert store.datasets(PROJECT) == {"mine": None, "linked": subscription.name}
        with pytest.raises(ValueError, match="has a dataset 'linked' already"):
            store.add_dataset(PROJECT, "linked")
        with pytest.raises(ValueError, match="'a-b' is no dataset id"):
            store.add_dataset(PROJECT, "a-b")
