"""The steps of one subscription, with Octogen in memory and the sandbox's Analytics Hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from octogen_dagster.bigquery.listing_subscription import ListingSubscription
from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
)
from octogen_dagster.sandbox.hub import Hub
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.subscribe import Subscriptions
from octogen_dagster.sharing.subscription_plan import plan_subscription
from tests.sharing.octogen import ME, OTHERS, PRINCIPAL, PROJECT, Octogen, cell, cell_of, listing


@dataclass
class Case:
    """One listing of a sandbox, and Octogen in memory that shares it."""

    hub: Hub
    subscription: ListingSubscription
    octogen: Octogen
    messages: list[str] = field(default_factory=list)

    def subscribe(self, dataset_id: str | None = None) -> str:
        """Subscribe with Octogen, and return the id of the linked dataset."""
        result = self.subscription.subscribe_with_octogen(self.octogen, PRINCIPAL, dataset_id)
        return result.linked_dataset

    def set_status(self, status: str | None, reason: str | None = None) -> None:
        (own,) = self.octogen.listed
        self.octogen.cells = [cell_of("s-1", own, status, reason)]


@pytest.fixture
def case() -> Iterator[Case]:
    with Sandbox(catalogs=0, hub=True) as sandbox:
        resource = sandbox.hub.share("acme")
        shared = listing("acme", listing_resource=resource, linked_dataset="suggested")
        octogen = Octogen([shared], [*OTHERS, ME])
        messages: list[str] = []
        with AnalyticsHub(endpoint=sandbox.hub.endpoint) as analytics_hub:
            subscription = ListingSubscription(
                Subscriptions(analytics_hub),
                plan_subscription(resource, PROJECT),
                None,
                messages.append,
            )
            case = Case(sandbox.hub, subscription, octogen, messages)
            case.set_status("awaiting_subscription")
            yield case


def datasets(hub: Hub) -> list[str]:
    return [each.dataset for each in hub.subscriptions]


def test_each_step_is_one_call_of_octogen(case: Case) -> None:
    assert case.subscribe() == "suggested"
    assert datasets(case.hub) == ["suggested"]
    assert case.octogen.calls == ["listings", "subscribers", f"refresh acme {PRINCIPAL}"]
    assert case.messages == []


def test_a_chosen_dataset_id_is_used_in_place_of_the_suggestion(case: Case) -> None:
    assert case.subscribe("mine") == "mine"


def test_a_missing_subscriber_is_registered_first(case: Case) -> None:
    case.octogen.registered = OTHERS
    case.octogen.after_registration, case.octogen.cells = case.octogen.cells, []
    assert case.subscribe() == "suggested"
    assert case.octogen.calls[2] == f"register {PROJECT} {PRINCIPAL}"


def test_a_subscription_that_octogen_does_not_confirm_counts_and_is_logged(case: Case) -> None:
    case.octogen.refresh_fails = {"acme"}
    assert case.subscribe() == "suggested"
    (message,) = case.messages
    assert "It is subscribed, but Octogen did not look again: Octogen did not answer." in message


def test_an_active_listing_is_subscribed_to_without_a_confirmation(case: Case) -> None:
    case.set_status("active")
    assert case.subscribe() == "suggested"
    assert case.octogen.calls == ["listings", "subscribers"]


@pytest.mark.parametrize("status", ["preparing", "melted", None, "no cell"])
def test_a_pending_listing_counts_only_if_the_project_is_subscribed(
    case: Case, status: str | None
) -> None:
    case.set_status(status)
    if status == "no cell":
        case.octogen.cells = []
    with pytest.raises(OctogenBigQueryAccessPendingError, match=r"^Listing projects/.*: Octogen"):
        case.subscribe()
    assert datasets(case.hub) == []
    with AnalyticsHub(endpoint=case.hub.endpoint) as analytics_hub:
        Subscriptions(analytics_hub).subscribe(case.subscription.plan)
        case.subscription.subscriptions = Subscriptions(analytics_hub)
        assert case.subscribe() == "suggested"
    assert case.messages[0].endswith("The project is subscribed nevertheless.")


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        ("refresh_failed", None, "Octogen reports refresh_failed: ask Octogen."),
        ("preparing", "scope_revoked", "Octogen does not share it (scope_revoked)."),
        ("removing", None, "Octogen does not share it (removing)."),
    ],
)
def test_any_other_status_is_an_error(
    case: Case, status: str, reason: str | None, message: str
) -> None:
    case.set_status(status, reason)
    with pytest.raises(OctogenBigQueryError) as caught:
        case.subscribe()
    assert str(caught.value) == f"Listing {case.subscription.plan.listing}: {message}"
    assert datasets(case.hub) == []


def test_a_subscriber_that_is_disabled_is_an_error_and_not_pending(case: Case) -> None:
    case.octogen.registered = [replace(ME, desired_state="disabled")]
    with pytest.raises(OctogenBigQueryError, match="is disabled at Octogen: enable it") as caught:
        case.subscribe()
    assert not isinstance(caught.value, OctogenBigQueryAccessPendingError)


def test_a_listing_that_octogen_does_not_share_registers_nobody(case: Case) -> None:
    case.octogen.listed, case.octogen.registered = [listing("zen")], []
    with pytest.raises(OctogenBigQueryError, match="does not share it with your organisation now"):
        case.subscribe()
    assert case.octogen.calls == ["listings"]


def test_another_listing_of_the_catalog_is_not_subscribed_to(case: Case) -> None:
    case.octogen.cells = [cell("acme")]  # of an exchange that shares nothing
    with pytest.raises(OctogenBigQueryError, match="and not this one: ask Octogen") as caught:
        case.subscribe()
    assert f"Octogen offers listing {listing('acme').listing_resource} of" in str(caught.value)
    assert datasets(case.hub) == []


def test_the_project_may_be_named_by_its_number(case: Case) -> None:
    (own,) = case.octogen.listed
    number = str(own.listing_resource).replace("octogen-sandbox", "123456")
    case.octogen.listed = [replace(own, listing_resource=number)]
    case.set_status("awaiting_subscription")
    assert case.subscribe() == "suggested"
