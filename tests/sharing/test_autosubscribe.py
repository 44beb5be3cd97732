"""A pass over Octogen in memory, with subscriptions in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from octogen_dagster.control_plane.tools import Cell, SharedListing, Subscriber
from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenMCPError,
)
from octogen_dagster.sharing.autosubscribe import (
    AutosubscribeResult,
    CatalogOutcome,
    autosubscribe,
)
from octogen_dagster.sharing.octogen_protocols import ControlPlane
from octogen_dagster.sharing.resource_names import sample_query
from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult
from octogen_dagster.sharing.subscription_plan import SubscriptionPlan
from octogen_dagster.sharing.verdict import NOT_GRANTED, Action
from tests.sharing.octogen import (
    EXCHANGE,
    ME,
    OTHERS,
    PRINCIPAL,
    PROJECT,
    Octogen,
    cell,
    cell_of,
    listing,
    shared,
)


@dataclass
class Subscribing:
    """Carries out plans in memory."""

    fails: dict[str, Exception] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)
    plans: list[SubscriptionPlan] = field(default_factory=list)

    def __call__(self, plan: SubscriptionPlan) -> BigQuerySubscriptionResult:
        self.plans.append(plan)
        catalog = plan.listing.listing
        if catalog in self.fails:
            raise self.fails[catalog]
        return BigQuerySubscriptionResult(
            listing_resource=str(plan.listing),
            linked_project=plan.project,
            linked_dataset=f"linked_{catalog}",
            state="STATE_ACTIVE",
            already_subscribed=catalog in self.there,
            subscription_name=f"projects/mine/locations/us/subscriptions/{catalog}",
            sample_query=sample_query(plan.project, f"linked_{catalog}"),
        )


def run(
    octogen: ControlPlane,
    subscribing: Subscribing | None = None,
    *,
    apply: bool = True,
    catalogs: Sequence[str] = (),
    friendly_name: str | None = None,
) -> AutosubscribeResult:
    return autosubscribe(
        octogen,
        subscribing or Subscribing(),
        project=PROJECT,
        principal=PRINCIPAL,
        catalogs=catalogs,
        apply=apply,
        friendly_name=friendly_name,
    )


def actions(result: AutosubscribeResult) -> dict[str | None, str]:
    return {outcome.catalog_key: str(outcome.action) for outcome in result.catalogs}


def test_waiting_listings_are_subscribed_to_and_octogen_is_told() -> None:
    octogen, subscribing = shared("acme", zen="active"), Subscribing()
    result = run(octogen, subscribing, friendly_name="Shops")
    assert json.loads(json.dumps(result.as_dict())) == {
        "applied": True,
        "subscriber_project_id": PROJECT,
        "subscriber_principal": PRINCIPAL,
        "subscriber_id": "s-1",
        "registered_subscriber": False,
        "would_register_subscriber": False,
        "catalogs": [
            {
                "catalog_key": "acme",
                "action": "subscribed",
                "status": "active",
                "reason_code": None,
                "listing_resource": f"{EXCHANGE}/listings/acme",
                "linked_dataset": "linked_acme",
                "sample_query": sample_query(PROJECT, "linked_acme"),
                "refresh_status": "active",
                "message": None,
            },
            {
                "catalog_key": "zen",
                "action": "already_active",
                "status": "active",
                "reason_code": None,
                "listing_resource": f"{EXCHANGE}/listings/zen",
                "linked_dataset": "octogen_zen",
                "sample_query": sample_query(PROJECT, "octogen_zen"),
                "refresh_status": None,
                "message": None,
            },
        ],
        "summary": {"subscribed": 1, "already_active": 1},
    }
    (plan,) = subscribing.plans
    assert (plan.project, plan.dataset_id, plan.location) == (PROJECT, "octogen_acme", "us")
    assert (plan.friendly_name, plan.is_fixed) == ("Shops", False)
    assert octogen.calls == ["listings", "subscribers", f"refresh acme {PRINCIPAL}"]


class Silent(Octogen):
    """Octogen that sends only the catalog when it is told to look again."""

    def refresh_status(self, catalog_key: str, *_: object, **__: object) -> Cell:
        return Cell(catalog_key=catalog_key)


def test_what_octogen_leaves_out_of_a_refresh_stays_as_it_was_known() -> None:
    waiting = cell("acme", "awaiting_subscription", "new")
    (outcome,) = run(Silent([waiting], [ME], [waiting])).catalogs
    assert (outcome.action, outcome.refresh_status) == (Action.SUBSCRIBED, None)
    assert (outcome.status, outcome.reason_code) == ("awaiting_subscription", "new")


def test_a_dry_run_changes_nothing() -> None:
    octogen, subscribing = shared("acme"), Subscribing()
    result = run(octogen, subscribing, apply=False)
    assert actions(result) == {"acme": "would_subscribe"}
    assert result.catalogs[0].message == "A pass with --apply creates the linked dataset."
    assert (result.applied, subscribing.plans) == (False, [])
    assert octogen.calls == ["listings", "subscribers"]


def test_a_missing_subscriber_is_registered() -> None:
    octogen = Octogen(
        [listing("acme"), listing("zen")], OTHERS, [cell_of("s-8", listing("acme"), "active", None)]
    )
    dry = run(octogen, apply=False)
    assert (dry.would_register_subscriber, dry.subscriber_id) == (True, None)
    assert actions(dry) == {"acme": "pending", "zen": "pending"}
    assert "The subscriber is not registered" in str(dry.catalogs[0].message)

    octogen.after_registration = [cell("acme"), cell("zen", "pending")]
    result = run(octogen)
    assert (result.registered_subscriber, result.subscriber_id) == (True, "s-1")
    assert actions(result) == {"acme": "subscribed", "zen": "pending"}
    assert f"register {PROJECT} {PRINCIPAL}" in octogen.calls


def test_a_disabled_subscriber_is_pending() -> None:
    octogen = shared("acme", zen="active")
    octogen.registered = [replace(ME, desired_state="disabled")]
    result = run(octogen)
    assert actions(result) == {"acme": "pending", "zen": "pending"}
    assert {outcome.status for outcome in result.catalogs} == {"disabled"}
    assert result.catalogs[0].message == "The subscriber is disabled at Octogen: enable it there."


@pytest.mark.parametrize("status", ["active", "preparing", "melted", "removing"])
def test_a_listing_that_does_not_wait_is_left_alone(status: str) -> None:
    octogen = Octogen([listing("acme")], [ME], [cell("acme", status, "a_reason")])
    (outcome,) = run(octogen).catalogs
    assert (outcome.status, outcome.reason_code) == (status, "a_reason")
    assert outcome.action in (Action.ALREADY_ACTIVE, Action.PENDING, Action.SKIPPED)
    assert octogen.calls == ["listings", "subscribers"]


def test_a_failure_does_not_stop_the_others() -> None:
    octogen = shared("a", "b", "c", "d", "e")
    octogen.refresh_fails = {"d"}
    subscribing = Subscribing(
        fails={
            "a": OctogenBigQueryError("It is broken."),
            "b": OctogenBigQueryAccessPendingError("Not yet."),
        },
        there={"c"},
    )
    result = run(octogen, subscribing)
    assert actions(result) == {
        "a": "error",
        "b": "pending",
        "c": "already_subscribed",
        "d": "error",
        "e": "subscribed",
    }
    a, b, _, d, _ = result.catalogs
    assert (a.message, a.linked_dataset, a.status) == (
        "It is broken.",
        "octogen_a",
        "awaiting_subscription",
    )
    assert b.message == "Not yet."
    assert d.linked_dataset == "linked_d"
    assert d.message == (
        "It is subscribed, but Octogen did not look again: Octogen did not answer."
    )
    assert result.summary == {
        "error": 2,
        "pending": 1,
        "already_subscribed": 1,
        "subscribed": 1,
    }


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"listing_resource": "acme"}, "'acme' is not the name of a listing"),
        ({"linked_dataset": "my-data"}, "Dataset id 'my-data' is invalid"),
        ({"listing_resource": None}, "Octogen grants access and names no listing: report it"),
    ],
)
def test_an_invalid_offer_is_an_error(
    apply: bool, parts: dict[str, str | None], message: str
) -> None:
    odd = listing("acme", **parts)
    octogen = Octogen([odd], [ME], [cell_of("s-1", odd, "awaiting_subscription", None)])
    subscribing = Subscribing()
    (outcome,) = run(octogen, subscribing, apply=apply).catalogs
    assert outcome.action is Action.ERROR
    assert message in str(outcome.message)
    assert subscribing.plans == []


def test_parts_that_a_cell_leaves_out_are_taken_from_the_listing() -> None:
    bare = cell_of("s-1", SharedListing("acme"), "awaiting_subscription", None)
    subscribing = Subscribing()
    result = run(Octogen([listing("acme")], [ME], [bare]), subscribing)
    assert actions(result) == {"acme": "subscribed"}
    assert subscribing.plans[0].dataset_id == "octogen_acme"


def test_a_missing_suggestion_is_derived_from_the_listing() -> None:
    bare = cell_of("s-1", listing("acme", linked_dataset=None), "active", None)
    (outcome,) = run(Octogen([], [ME], [bare])).catalogs
    assert outcome.linked_dataset == "octogen_acme"


def test_every_listing_and_cell_has_an_outcome() -> None:
    without_key = listing("lost", catalog_key=None, listing_resource="odd")
    octogen = Octogen(
        listed=[listing("listed"), listing("known"), without_key],
        registered=[ME],
        cells=[
            cell_of("s-1", listing("known", catalog_key=None), "active", None),
            cell_of("s-1", listing("unlisted"), "pending", "removing"),
            cell_of("s-1", SharedListing(None), "active", None),
            cell_of("s-8", listing("theirs"), "active", None),
        ],
    )
    result = run(octogen)
    assert [(each.catalog_key, str(each.action)) for each in result.catalogs] == [
        (None, "skipped"),
        (None, "skipped"),
        ("known", "already_active"),
        ("listed", "pending"),
        ("unlisted", "skipped"),
    ]
    assert result.catalogs[0].message == (
        "Octogen sent it without a catalog key: report it to Octogen."
    )
    assert result.catalogs[3].message == "Octogen has no status for this subscriber yet."


def test_a_catalog_in_two_regions_has_a_status_for_each() -> None:
    in_us, in_eu = listing("acme"), listing("acme")
    in_eu = replace(in_eu, listing_resource=str(in_eu.listing_resource).replace("/us/", "/eu/"))
    active = cell_of("s-1", in_us, "active", None)
    for cells in ([active, cell_of("s-1", in_eu, None, None)], [active]):
        for listed in ([in_us, in_eu], [in_eu, in_us]):
            result = run(Octogen(listed, [ME], cells))
            assert {each.listing_resource: each.status for each in result.catalogs} == {
                in_us.listing_resource: "active",
                in_eu.listing_resource: None,
            }
    nameless = cell_of("s-1", SharedListing("acme"), "pending", None)
    result = run(Octogen([in_us, in_eu], [ME], [active, nameless]))
    assert {each.listing_resource: each.status for each in result.catalogs} == {
        in_us.listing_resource: "active",
        in_eu.listing_resource: "pending",
    }


def test_only_the_chosen_catalogs_have_an_outcome() -> None:
    result = run(shared("acme", "other", zen="active"), catalogs=["zen", "acme", "typo"])
    assert actions(result) == {"acme": "subscribed", "typo": "error", "zen": "already_active"}
    assert result.catalogs[1].message == NOT_GRANTED


def test_each_catalog_is_reported_when_it_is_done() -> None:
    seen: list[tuple[str | None, int]] = []
    subscribing = Subscribing()

    def report(outcome: CatalogOutcome) -> None:
        seen.append((outcome.catalog_key, len(subscribing.plans)))

    autosubscribe(
        shared("a", "b"),
        subscribing,
        project=PROJECT,
        principal=PRINCIPAL,
        apply=True,
        report=report,
    )
    assert seen == [("a", 1), ("b", 2)]


def test_an_invalid_project_is_not_sent() -> None:
    octogen = shared("acme")
    with pytest.raises(OctogenBigQueryInputError):
        autosubscribe(octogen, Subscribing(), project="", principal=PRINCIPAL)
    assert octogen.calls == []


def test_a_control_plane_that_fails_stops_the_pass() -> None:
    class Broken(Octogen):
        def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
            raise OctogenMCPError("It is broken.")

    with pytest.raises(OctogenMCPError, match="It is broken"):
        run(Broken())


def test_a_second_pass_changes_nothing_more() -> None:
    octogen, subscribing = shared("acme"), Subscribing()
    run(octogen, subscribing)
    octogen.cells = [cell("acme", "active")]
    assert actions(run(octogen, subscribing)) == {"acme": "already_active"}
    assert len(subscribing.plans) == 1
