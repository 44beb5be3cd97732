"""Subscribes a project to a listing, which creates its linked dataset."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
)
from octogen_dagster.sharing.hub import REVOKED, AnalyticsHub, Subscription
from octogen_dagster.sharing.names import SubscriptionPlan, plan_subscription, sample_query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from google.auth.credentials import Credentials

WAITS = (0.5, 1, 2, 4, 8)
"""Seconds before each further look at a dataset id that is taken: lists lag behind."""
_AGAIN = (
    "materialize this partition (or repeat the command): the listing sensor does not request a "
    "subscription that was deleted."
)


@dataclass(frozen=True, slots=True)
class BigQuerySubscriptionResult:
    """A subscription to a listing, with its linked dataset.

    Attributes:
        listing_resource: The listing that was requested.
        linked_project: The project of the linked dataset.
        linked_dataset: The id of the linked dataset.
        state: The state of the subscription: `STATE_ACTIVE` or `STATE_STALE`.
        already_subscribed: True if the subscription existed before.
        subscription_name: The resource name of the subscription.
        sample_query: A first query to the linked dataset.
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
    """Subscribe a project to a listing, which creates a linked dataset in it.

    If the project is subscribed to the listing already, that subscription is returned, whatever
    its dataset is called.

    Args:
        listing_resource: The listing, as
            `projects/<p>/locations/<loc>/dataExchanges/<ex>/listings/<id>`.
        destination_project: Your Google Cloud project, which the linked dataset is created in.
        destination_dataset_id: The id of the linked dataset; by default `octogen_<listing id>`.
        location: The BigQuery location of the linked dataset; by default the listing's.
        friendly_name: The display name of the linked dataset; by default `Octogen <dataset id>`.
        credentials: Google credentials; by default Application Default Credentials.

    Raises:
        OctogenBigQueryAccessPendingError: Octogen's grant on the listing has not arrived yet; try
            again in a few minutes.
        OctogenBigQueryInputError: A name is invalid; nothing was sent.
        OctogenBigQueryError: The dataset id is taken, or the call failed for any other reason.
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
    replacing: Callable[[str, str], None] | None = None,
    datasets: Mapping[str, str] = MappingProxyType({}),
) -> BigQuerySubscriptionResult:
    """Subscribe, unless the project is subscribed to the listing already.

    A dataset id that is taken is taken by a faster process, by an attempt whose answer was lost, by
    what a revoked subscription left behind, or by others. Time and the list alone tell these apart.

    `replacing` allows to delete revoked subscriptions to the same listing that hold the dataset id,
    each with its linked dataset and the access rights set on it; it is called before each deletion
    with the names of the subscription and the dataset. `datasets` are ids of linked datasets by
    subscription name: Analytics Hub may name a dataset only while its subscription is active.
    """
    own: list[Subscription] = []
    deleted: set[str] = set()
    for attempt, wait in enumerate((0, *WAITS)):
        time.sleep(wait)
        own = _subscriptions_to(hub, plan, datasets)
        existing = in_force(own, plan)
        if existing is not None:
            return _result(existing, plan, already_subscribed=True)
        if attempt:  # the dataset id is taken
            holders = [each for each in own if each.dataset_id == plan.dataset_id]
            leftovers = [each for each in holders if each.name not in deleted]
            _delete(hub, plan, leftovers, replacing)
            # Lists lag behind, so one that was deleted may be listed once more.
            deleted.update(each.name for each in leftovers)
        created = hub.subscribe(plan)
        if created is not None:
            named = replace(created, dataset_id=created.dataset_id or plan.dataset_id)
            return _result(named, plan, already_subscribed=False)
    raise _still_taken(plan, own, deleted)


def find_subscription(
    hub: AnalyticsHub, plan: SubscriptionPlan, datasets: Mapping[str, str] = MappingProxyType({})
) -> BigQuerySubscriptionResult | None:
    """The subscription to the plan's listing that gives access to data; None if there is none."""
    found = in_force(_subscriptions_to(hub, plan, datasets), plan)
    return None if found is None else _result(found, plan, already_subscribed=True)


def in_force(subscriptions: Iterable[Subscription], plan: SubscriptionPlan) -> Subscription | None:
    """The best of the subscriptions to the plan's listing that give access to data.

    More than one is rare: it prefers the planned dataset, then a known one, then current data.
    """
    return min(
        (each for each in subscriptions if each.in_force and each.listing.key == plan.listing.key),
        key=lambda each: (
            each.dataset_id != plan.dataset_id,
            each.dataset_id is None,
            # `STATE_ACTIVE` is before `STATE_STALE` in the alphabet.
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


def _delete(
    hub: AnalyticsHub,
    plan: SubscriptionPlan,
    leftovers: Sequence[Subscription],
    replacing: Callable[[str, str], None] | None,
) -> None:
    """Delete revoked subscriptions that hold the dataset id: all of them, or none."""
    if not leftovers:
        return
    for each in leftovers:
        if each.state != REVOKED:
            raise OctogenBigQueryError(f"{_taken(plan)}, and {_unknown_state(each)}")
    # Asked before anything is deleted: without the grant no dataset would take the place.
    if not hub.may_subscribe(plan.listing):
        raise OctogenBigQueryAccessPendingError(
            f"Listing {plan.listing} as dataset {plan.project}.{plan.dataset_id}: Octogen's grant "
            "has not arrived yet, and nothing was changed. It is asynchronous: try again in a few "
            "minutes."
        )
    if replacing is None:
        raise OctogenBigQueryError(
            f"{_taken(plan)}, and it is left over from subscription {leftovers[0].name} to this "
            "listing, which was revoked. Nothing was changed. With replace_revoked=True of "
            "build_linked_datasets_asset or build_url_list_export_asset (replace_revoked: true in "
            "YAML), a run deletes that subscription with the dataset and the access rights set on "
            "it, and subscribes again. "
            f"Or delete it yourself, then {_AGAIN}"
        )
    for each in leftovers:
        replacing(each.name, f"{plan.project}.{plan.dataset_id}")
        hub.delete(each.name)


def _still_taken(
    plan: SubscriptionPlan, own: Sequence[Subscription], deleted: Iterable[str]
) -> OctogenBigQueryError:
    """The error of a plan whose dataset id stays taken, by no subscription that names it."""
    if deleted:
        return OctogenBigQueryUnavailableError(
            f"Listing {plan.listing}: dataset {plan.project}.{plan.dataset_id} is still there, "
            "although the revoked subscription that it belonged to was deleted. Try again later."
        )
    problem = (
        "no subscription to this listing has it: choose another dataset id with dataset_id= "
        "(--dataset on a command line), or delete the dataset if nobody needs it. If a "
        "subscription to this listing was just made or deleted, try again in a few minutes."
    )
    for each in own:
        if each.dataset_id is None:
            problem = (
                f"a revoked subscription {each.name} to this listing is there, which does not say "
                "its dataset: if it is this one, delete that subscription, then "
                f"{_AGAIN} If not, choose another dataset id with dataset_id= (--dataset on a "
                "command line)."
            )
            if each.state != REVOKED:
                problem = _unknown_state(each)
    return OctogenBigQueryError(f"{_taken(plan)}, and {problem}")


def _taken(plan: SubscriptionPlan) -> str:
    return f"Listing {plan.listing}: project {plan.project} already has a dataset {plan.dataset_id}"


def _unknown_state(subscription: Subscription) -> str:
    return (
        f"subscription {subscription.name} to this listing is in state {subscription.state}, which "
        "this version does not know: look at it in the Google console; nothing was changed."
    )


def _result(
    subscription: Subscription, plan: SubscriptionPlan, *, already_subscribed: bool
) -> BigQuerySubscriptionResult:
    if subscription.dataset_id is None:
        raise OctogenBigQueryError(
            f"Listing {plan.listing}: project {plan.project} is subscribed ({subscription.name}, "
            f"{subscription.state}), and Analytics Hub does not say which dataset is linked to it. "
            "Look for it in BigQuery, under the project's datasets."
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
