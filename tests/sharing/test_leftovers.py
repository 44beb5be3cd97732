"""Leftovers of revoked subscriptions: replaced if they hold the dataset id, and kept otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
)
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.subscribe import Subscriptions
from octogen_dagster.sharing.subscription_plan import plan_subscription
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault
from tests.sharing.subscriptions import PLACES, PROJECT, to

pytestmark = pytest.mark.usefixtures("local_hub")


def revoked_and_granted(hub: Hub, **settings: Any) -> str:
    """A listing whose first subscription is no longer in force, and that can be subscribed to."""
    listing = hub.share("acme")
    to(listing, **settings)
    hub.revoke_access("acme")
    hub.grant_access("acme")
    return listing


def known(hub: Hub) -> dict[str, str]:
    """The datasets of all subscriptions, as somebody knows them who noted what was reported."""
    return {each.name: each.dataset for each in hub.subscriptions}


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (
            "both",
            "it is left over from subscription {} to this listing, which was revoked. Nothing was "
            "changed. With replace_revoked=True of build_linked_datasets_asset (replace_revoked: "
            "true in YAML), a run deletes that subscription with the dataset and the access rights "
            "set on it, and subscribes again. Or delete it yourself.",
        ),
        (
            "linked_dataset_map",
            "a revoked subscription {} to this listing is there, which does not say its dataset: "
            "if it is this one, delete that subscription, then subscribe again; if not, choose "
            "another dataset id.",
        ),
    ],
)
def test_a_revoked_subscription_that_holds_the_dataset_id_is_an_error(
    hub: Hub, place: Any, problem: str
) -> None:
    hub.settings.linked_dataset_in = place
    listing = revoked_and_granted(hub)
    (left,) = hub.subscriptions
    with pytest.raises(OctogenBigQueryError) as caught:
        to(listing)
    assert str(caught.value).startswith(
        f"Listing {listing}: project {PROJECT} already has a dataset octogen_acme, and "
        f"{problem.format(left.name)}"
    )
    assert hub.subscriptions == [left]
    assert to(listing, destination_dataset_id="second").already_subscribed is False


@pytest.mark.parametrize("says_taken", [False, True])
def test_a_revoked_subscription_stays_until_it_is_granted_again(hub: Hub, says_taken: bool) -> None:
    listing = hub.share("acme")
    to(listing)
    hub.revoke_access("acme")
    if says_taken:  # Google may look at the destination before it looks at the grant
        hub.inject(HubFault("status", "ALREADY_EXISTS", method="SubscribeListing", times=1))
    before, datasets = hub.subscriptions, hub.datasets(PROJECT)
    replaced: list[tuple[str, str]] = []
    with AnalyticsHub() as analytics_hub:
        subscriptions = Subscriptions(analytics_hub, known(hub))
        with pytest.raises(
            OctogenBigQueryAccessPendingError, match="Octogen's grant has not arrived yet"
        ):
            subscriptions.subscribe(
                plan_subscription(listing, PROJECT), replacing=lambda *names: replaced.append(names)
            )
        assert (hub.subscriptions, hub.datasets(PROJECT), replaced) == (before, datasets, [])
        hub.grant_access("acme")
        subscriptions.subscribe(
            plan_subscription(listing, PROJECT), replacing=lambda *names: replaced.append(names)
        )
    assert replaced == [(before[0].name, f"{PROJECT}.octogen_acme")]


@pytest.mark.parametrize("place", PLACES)
def test_a_revoked_subscription_is_replaced(hub: Hub, place: Any) -> None:
    hub.settings.linked_dataset_in = place
    listing = revoked_and_granted(hub)
    (left,) = hub.subscriptions
    replaced: list[tuple[str, str]] = []
    with AnalyticsHub() as analytics_hub:
        result = Subscriptions(analytics_hub, known(hub)).subscribe(
            plan_subscription(listing, PROJECT), replacing=lambda *names: replaced.append(names)
        )
    assert replaced == [(left.name, f"{PROJECT}.octogen_acme")]
    assert (result.already_subscribed, result.state) == (False, "STATE_ACTIVE")
    assert [each.name for each in hub.subscriptions] == [result.subscription_name] != [left.name]


def test_a_revoked_subscription_with_an_unknown_dataset_is_kept(hub: Hub) -> None:
    listing = revoked_and_granted(hub, destination_dataset_id="mine")
    hub.settings.linked_dataset_in = "linked_dataset_map"
    hub.add_dataset(PROJECT, "octogen_acme")
    before = hub.subscriptions
    elsewhere = {f"{before[0].name}0": "octogen_acme"}
    for datasets in ({}, elsewhere, known(hub)):
        with AnalyticsHub() as analytics_hub, pytest.raises(OctogenBigQueryError) as caught:
            Subscriptions(analytics_hub, datasets).subscribe(
                plan_subscription(listing, PROJECT), replacing=lambda *_: None
            )
        silent = "which does not say its dataset" in str(caught.value)
        assert silent == (datasets != known(hub))
    assert hub.subscriptions == before
    assert set(hub.datasets(PROJECT)) == {"mine", "octogen_acme"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("state", [0, 7])
def test_a_subscription_in_an_unknown_state_is_kept(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, place: Any, state: int
) -> None:
    hub.settings.linked_dataset_in = place
    listing = revoked_and_granted(hub)
    (left,) = hub.subscriptions
    hub.settings.states["STATE_INACTIVE"] = state
    with AnalyticsHub() as analytics_hub, pytest.raises(OctogenBigQueryError) as caught:
        Subscriptions(analytics_hub).subscribe(
            plan_subscription(listing, PROJECT), replacing=lambda *_: None
        )
    assert (
        f"subscription {left.name} to this listing is in state {state or 'STATE_UNSPECIFIED'}, "
        "which this version does not know: look at it in the Google console; nothing was changed."
    ) in str(caught.value)
    assert hub.subscriptions == [left]


def test_either_all_leftovers_are_deleted_or_none(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.settings.linked_dataset_in = "linked_dataset_map"
    listing = revoked_and_granted(hub)
    to(listing, destination_dataset_id="second")
    hub.make_stale("acme")
    before = hub.subscriptions
    hub.settings.states["STATE_STALE"] = 7
    both = dict.fromkeys(known(hub), "octogen_acme")
    with (
        AnalyticsHub() as analytics_hub,
        pytest.raises(
            OctogenBigQueryError, match=f"{before[1].name} to this listing is in state 7"
        ),
    ):
        Subscriptions(analytics_hub, both).subscribe(
            plan_subscription(listing, PROJECT), replacing=lambda *_: None
        )
    assert hub.subscriptions == before


def test_a_revoked_subscription_with_another_dataset_is_kept(hub: Hub) -> None:
    listing = revoked_and_granted(hub, destination_dataset_id="mine")
    hub.add_dataset(PROJECT, "octogen_acme")
    with (
        AnalyticsHub() as analytics_hub,
        pytest.raises(
            OctogenBigQueryError, match="octogen_acme, and no subscription to this listing has it"
        ),
    ):
        Subscriptions(analytics_hub).subscribe(
            plan_subscription(listing, PROJECT), replacing=lambda *_: None
        )
    assert len(hub.subscriptions) == 1
