"""Subscribe a project to a listing, which creates a linked dataset."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
)
from octogen_dagster.sharing.hub import REVOKED, AnalyticsHub, Subscription
from octogen_dagster.sharing.names import SubscriptionPlan, plan_subscription, sample_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.auth.credentials import Credentials

WAITS = (0.5, 1, 2, 4, 8)
"""Seconds to wait before each new attempt if the dataset id is taken.

A new subscription can take a while to appear in the list.
"""
_AGAIN = (
    "materialize this partition or repeat the command. The listing sensor does not recreate a "
    "deleted subscription."
)


@dataclass(frozen=True, slots=True)
class BigQuerySubscriptionResult:
    """A subscription and its linked dataset.

    Attributes:
        listing_resource: The requested listing's resource name.
        linked_project: The linked dataset's project id.
        linked_dataset: The linked dataset's id.
        state: The subscription state: `STATE_ACTIVE` or `STATE_STALE`.
        already_subscribed: True if the subscription already existed.
        subscription_name: The subscription's resource name.
        sample_query: A sample query for the linked dataset.
    """

    listing_resource: str
    linked_project: str
    linked_dataset: str
    state: str
    already_subscribed: bool
    subscription_name: str
    sample_query: str


def subscribe_to_listing(
    *,
    listing_resource: str,
    destination_project: str,
    destination_dataset_id: str | None = None,
    location: str | None = None,
    friendly_name: str | None = None,
    credentials: Credentials | None = None,
) -> BigQuerySubscriptionResult:
    """Subscribe a project to a listing, which creates a linked dataset in the project.

    If the project is already subscribed to the listing, the existing subscription is returned,
    regardless of its dataset id.

    Args:
        listing_resource: The listing, as
            `projects/<p>/locations/<loc>/dataExchanges/<ex>/listings/<id>`.
        destination_project: Your Google Cloud project, where the linked dataset is created.
        destination_dataset_id: The linked dataset's id; defaults to `octogen_<listing id>`.
        location: The linked dataset's BigQuery location; defaults to the listing's location.
        friendly_name: The linked dataset's display name; defaults to `Octogen <dataset id>`.
        credentials: Google credentials; defaults to Application Default Credentials.

    Raises:
        OctogenBigQueryAccessPendingError: Octogen's grant on the listing has not arrived yet. Try
            again in a few minutes.
        OctogenBigQueryInputError: A name is invalid. No request was sent.
        OctogenBigQueryError: The dataset id is taken, or the call failed for another reason.
    """
    plan = plan_subscription(
        listing_resource, destination_project, destination_dataset_id, location, friendly_name
    )
    with AnalyticsHub(credentials) as hub:
        return subscribe(hub, plan)


def subscribe(
    hub: AnalyticsHub,
    plan: SubscriptionPlan,
    *,
    datasets: Mapping[str, str] = MappingProxyType({}),
) -> BigQuerySubscriptionResult:
    """Subscribe a project to a listing, or return the existing subscription.

    If the dataset id is taken, the dataset might come from a concurrent process, from an attempt
    whose response was lost or from a revoked subscription. It might also be unrelated. To
    distinguish these cases, the list of subscriptions is read again after a wait.

    `datasets` maps subscription names to linked dataset ids, because Analytics Hub might report a
    dataset only while its subscription is active. This function never deletes anything.
    """
    own: list[Subscription] = []
    for attempt, wait in enumerate((0, *WAITS)):
        time.sleep(wait)
        own = _subscriptions_to(hub, plan, datasets)
        existing = in_force(own, plan)
        if existing is not None:
            return _result(existing, plan, already_subscribed=True)
        if attempt:  # the dataset id is taken
            _reject_leftovers(hub, plan, own)
        created = hub.subscribe(plan)
        if created is not None:
            named = replace(created, dataset_id=created.dataset_id or plan.dataset_id)
            return _result(named, plan, already_subscribed=False)
    raise _still_taken(plan, own)


def find_subscription(
    hub: AnalyticsHub, plan: SubscriptionPlan, datasets: Mapping[str, str] = MappingProxyType({})
) -> BigQuerySubscriptionResult | None:
    """Return an existing subscription that gives access to the listing, or None."""
    found = in_force(_subscriptions_to(hub, plan, datasets), plan)
    return None if found is None else _result(found, plan, already_subscribed=True)


def in_force(subscriptions: Iterable[Subscription], plan: SubscriptionPlan) -> Subscription | None:
    """Return the best subscription that gives access to the listing, or None.

    A subscription with the planned dataset is preferred, then one with a known dataset, then one
    with current data.
    """
    return min(
        (each for each in subscriptions if each.in_force and each.listing.key == plan.listing.key),
        key=lambda each: (
            each.dataset_id != plan.dataset_id,
            each.dataset_id is None,
            # `STATE_ACTIVE` sorts before `STATE_STALE`.
            each.state,
        ),
        default=None,
    )


def _subscriptions_to(
    hub: AnalyticsHub, plan: SubscriptionPlan, datasets: Mapping[str, str]
) -> list[Subscription]:
    return [
        replace(each, dataset_id=each.dataset_id or datasets.get(each.name))
        for each in hub.list_subscriptions(plan.project, plan.listing.location)
        if each.listing.key == plan.listing.key
    ]


def _reject_leftovers(
    hub: AnalyticsHub, plan: SubscriptionPlan, own: Sequence[Subscription]
) -> None:
    """Raise an error if the dataset belongs to a subscription that no longer gives access."""
    leftovers = [each for each in own if each.dataset_id == plan.dataset_id]
    if not leftovers:
        return
    for each in leftovers:
        if each.state != REVOKED:
            raise OctogenBigQueryError(f"{_taken(plan)}. {_unknown_state(each)}")
    # Before the grant arrives, deleting the old subscription would only lose the dataset.
    if not hub.may_subscribe(plan.listing):
        raise OctogenBigQueryAccessPendingError(
            f"Octogen's grant has not arrived yet, so listing {plan.listing} could not be linked "
            f"as dataset {plan.project}.{plan.dataset_id}. Nothing was changed. Grants are "
            "asynchronous, so try again in a few minutes."
        )
    raise OctogenBigQueryError(
        f"{_taken(plan)}. The dataset was left over from the revoked subscription "
        f"{leftovers[0].name} to this listing. Delete this subscription on BigQuery's Sharing "
        "page, which also deletes the dataset and the access rights set on it. Then "
        f"{_AGAIN}"
    )


def _still_taken(plan: SubscriptionPlan, own: Sequence[Subscription]) -> OctogenBigQueryError:
    """Return the error for a dataset id that is already in use for an unknown reason."""
    problem = (
        "No subscription to this listing uses the dataset. Choose another dataset id with "
        "dataset_id= (--dataset on the command line), or delete the dataset if nobody needs it. If "
        "a subscription to this listing was just created or deleted, try again in a few minutes."
    )
    for each in own:
        if each.dataset_id is None:
            problem = (
                f"The dataset might belong to {each.name}, a revoked subscription to this "
                "listing. Analytics Hub does not report which dataset the subscription used. If "
                f"the subscription used this dataset, delete the subscription, then {_AGAIN} If "
                "not, choose another dataset id with dataset_id= (--dataset on the command line)."
            )
            if each.state != REVOKED:
                problem = _unknown_state(each)
    return OctogenBigQueryError(f"{_taken(plan)}. {problem}")


def _taken(plan: SubscriptionPlan) -> str:
    return (
        f"Listing {plan.listing} could not be linked, because project {plan.project} already has a "
        f"dataset {plan.dataset_id}"
    )


def _unknown_state(subscription: Subscription) -> str:
    return (
        f"The subscription {subscription.name} to this listing has the unknown state "
        f"{subscription.state}. Check the subscription in the Google console."
    )


def _result(
    subscription: Subscription, plan: SubscriptionPlan, *, already_subscribed: bool
) -> BigQuerySubscriptionResult:
    if subscription.dataset_id is None:
        raise OctogenBigQueryError(
            f"Project {plan.project} is subscribed to listing {plan.listing} "
            f"({subscription.name}, {subscription.state}), but Analytics Hub does not report the "
            "linked dataset. Look for the dataset in the project's list of BigQuery datasets."
        )
    project = subscription.project or plan.project
    return BigQuerySubscriptionResult(
        listing_resource=str(plan.listing),
        linked_project=project,
        linked_dataset=subscription.dataset_id,
        state=subscription.state,
        already_subscribed=already_subscribed,
        subscription_name=subscription.name,
        sample_query=sample_query(project, subscription.dataset_id),
    )
