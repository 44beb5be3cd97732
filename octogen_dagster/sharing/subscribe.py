"""Subscribes projects to listings, which creates their linked datasets."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
)
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.dataset_holder import HeldDataset, Holder, dataset_holder
from octogen_dagster.sharing.leftovers import (
    kept_leftover,
    revoked_leftovers,
    suspect_problem,
    taken,
)
from octogen_dagster.sharing.resource_names import sample_query
from octogen_dagster.sharing.subscription import Subscription
from octogen_dagster.sharing.subscription_list import SubscriptionList
from octogen_dagster.sharing.subscription_plan import SubscriptionPlan, plan_subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from google.auth.credentials import Credentials
    from google.cloud import bigquery_analyticshub_v1 as ah


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
        destination_dataset_id: The id of the linked dataset; by default `octogen_<listing id>`,
            with a digest of the listing's name if that dataset is linked to another listing.
        location: The BigQuery location of the linked dataset; by default the listing's.
        friendly_name: The display name of the linked dataset; by default `Octogen <dataset id>`.
        credentials: Google credentials; by default Application Default Credentials.

    Raises:
        OctogenBigQueryAccessPendingError: Octogen's grant on the listing has not arrived yet; try
            again in a few minutes.
        OctogenBigQueryInputError: A name is invalid; nothing was sent.
        OctogenBigQueryError: The call failed for any other reason.
    """
    plan = plan_subscription(
        listing_resource, destination_project, destination_dataset_id, location, friendly_name
    )
    with AnalyticsHub(credentials) as hub:
        return Subscriptions(hub).subscribe(plan)


class Subscriptions:
    """The subscriptions of projects. Those of a project and location are read once.

    Use one object for a pass over many listings, and a new one for the next pass.

    Args:
        hub: Analytics Hub.
        datasets: Ids of linked datasets that are known from elsewhere, by subscription name.
            Analytics Hub may name the dataset of a subscription only while it is active.
    """

    waits: ClassVar[Sequence[float]] = (0.5, 1, 2, 4, 8)
    """Seconds before each further look at a dataset id that is taken, since lists lag behind."""

    def __init__(
        self, hub: AnalyticsHub, datasets: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._hub = hub
        self._list = SubscriptionList(hub, datasets)

    def subscribe(
        self,
        plan: SubscriptionPlan,
        *,
        replacing: Callable[[str, str], None] | None = None,
    ) -> BigQuerySubscriptionResult:
        """Carry out a plan.

        If the dataset is linked to another listing and nobody chose its id, the plan's alternative
        is carried out.

        Args:
            plan: The plan.
            replacing: Allows to delete revoked subscriptions to the same listing that hold the
                dataset id, each with its linked dataset and the access rights set on it. Called
                before each deletion with the names of the subscription and the dataset. Without
                it, such a subscription is an error.

        Raises:
            OctogenBigQueryAccessPendingError: Octogen's grant on the listing has not arrived yet.
            OctogenBigQueryUnavailableError: The dataset id is taken, and it is not known yet by
                what; or the dataset outlives its subscription.
            OctogenBigQueryError: The call failed, or the dataset is somebody else's.
        """
        existing = self.find_existing(plan)
        if existing is not None:
            return existing
        self._check_distinguishable(plan)
        return self._create(plan) or self._settle(plan, replacing)

    def find_existing(self, plan: SubscriptionPlan) -> BigQuerySubscriptionResult | None:
        """Find the subscription to the plan's listing that gives access to data.

        Returns:
            None if there is none.

        Raises:
            OctogenBigQueryError: The subscriptions cannot be read, or Analytics Hub does not say
                which dataset is linked.
        """
        existing = [each for each in self._list.to_listing(plan) if each.in_force]
        if not existing:
            return None
        # More than one is rare: prefer the planned dataset, then a known one, then current data.
        best = min(
            existing,
            key=lambda each: (
                each.dataset_id != plan.dataset_id,
                each.dataset_id is None,
                each.state,
            ),
        )
        return _result(best, plan, already_subscribed=True)

    def _create(self, plan: SubscriptionPlan) -> BigQuerySubscriptionResult | None:
        """Subscribe; None if the dataset id is taken."""
        created = self._hub.subscribe(_request(plan))
        if created is None:
            return None
        subscription = Subscription.of(created, {created.name: plan.dataset_id})
        return _result(subscription, plan, already_subscribed=False)

    def _settle(
        self, plan: SubscriptionPlan, replacing: Callable[[str, str], None] | None
    ) -> BigQuerySubscriptionResult:
        """Carry out a plan whose dataset id is taken.

        It is taken by a faster process, by an attempt whose response was lost, by what a revoked
        subscription left behind, or by others.
        """
        deleted: set[str] = set()
        waits = iter(self.waits)
        while True:
            self._list.forget()
            existing = self.find_existing(plan)
            if existing is not None:
                return existing
            others = [each for each in self._list.to_listing(plan) if each.name not in deleted]
            leftovers = revoked_leftovers(plan, others)
            if leftovers:
                self._delete(plan, leftovers, replacing)
                deleted.update(each.name for each in leftovers)
            # What a deletion leaves behind for a moment is nobody's, whatever it is linked to.
            held = HeldDataset(Holder.NOBODY) if deleted else self._look_at_dataset(plan)
            if held.holder is Holder.OTHER_LISTING and plan.alternative is not None:
                return self.subscribe(plan.alternative, replacing=replacing)
            if held.holder is Holder.NOBODY:
                created = self._create(plan)
                if created is not None:
                    return created
            elif held.holder in (Holder.OTHERS, Holder.OTHER_LISTING):
                raise held.error(plan)
            wait = next(waits, None)
            if wait is None:
                raise _remaining_error(plan, held, others, deleted)
            time.sleep(wait)

    def _look_at_dataset(self, plan: SubscriptionPlan) -> HeldDataset:
        """Find out whose the dataset is, by what it is linked to and by the subscriptions."""
        unreadable, dataset, holder = None, None, Holder.UNKNOWN
        try:
            dataset = self._hub.datasets.get(plan.project, plan.dataset_id)
            listing = self._hub.listing(str(plan.listing)) if dataset else None
            holder = dataset_holder(dataset, listing and listing.bigquery_dataset.dataset)
        except OctogenBigQueryError as error:
            unreadable = error.with_traceback(None)
        held = HeldDataset(
            holder,
            dataset.source if dataset else None,
            is_in_force=dataset is None or dataset.is_in_force,
            unreadable=unreadable,
        )
        if holder in (Holder.NOBODY, Holder.OTHERS):
            return held
        location = plan.listing.location
        if dataset and dataset.location.lower() != location.lower():
            location = dataset.location.lower() or location
        other = self._list.other_listing(plan, location)
        return replace(held, holder=Holder.OTHER_LISTING, linked_to=str(other)) if other else held

    def _delete(
        self,
        plan: SubscriptionPlan,
        leftovers: Sequence[Subscription],
        replacing: Callable[[str, str], None] | None,
    ) -> None:
        self._check_granted(plan)
        if replacing is None:
            raise kept_leftover(plan, leftovers[0])
        for subscription in leftovers:
            replacing(subscription.name, f"{plan.project}.{plan.dataset_id}")
            self._hub.delete(subscription.name)

    def _check_granted(self, plan: SubscriptionPlan) -> None:
        """Check that Octogen's grant on the listing has arrived.

        Raises:
            OctogenBigQueryAccessPendingError: It has not.
        """
        if not self._hub.may_subscribe(str(plan.listing)):
            raise OctogenBigQueryAccessPendingError(
                f"Listing {plan.listing} as dataset {plan.project}.{plan.dataset_id}: Octogen's "
                "grant has not arrived yet, and nothing was changed. It is asynchronous: try again "
                "in a few minutes."
            )

    def _check_distinguishable(self, plan: SubscriptionPlan) -> None:
        """Check that each subscription in force is known to be to another listing.

        Raises:
            OctogenBigQueryAccessPendingError: One may be to this listing, which is not granted.
            OctogenBigQueryError: One may be to this listing.
        """
        found = self._list.indistinguishable(plan)
        if found is None:
            return
        name, subscription = found
        self._check_granted(plan)
        raise OctogenBigQueryError(
            f"Listing {plan.listing}: subscription {subscription.name} to {name} is in force, and "
            "may be to the same listing: one name has the project's id, the other its number, and "
            "these Google credentials may not read the listing to tell. Let an administrator grant "
            "them roles/analyticshub.subscriber on it, or name the listing as the subscription "
            "does. Nothing was changed."
        )


def _remaining_error(
    plan: SubscriptionPlan,
    held: HeldDataset,
    subscriptions: Sequence[Subscription],
    deleted: Collection[str],
) -> OctogenBigQueryError:
    """The error of a plan whose dataset id was not free, nor its listing's, after all waits."""
    if deleted:
        return OctogenBigQueryUnavailableError(
            f"Listing {plan.listing}: dataset {plan.project}.{plan.dataset_id} is still there, "
            "although the revoked subscription that it belonged to was deleted. Try again later."
        )
    suspect = suspect_problem(subscriptions)
    if suspect and held.holder in (Holder.UNKNOWN, Holder.THIS_LISTING):
        return OctogenBigQueryError(
            f"{taken(plan)}, and {suspect}{f' {held.obstacle}.' if held.obstacle else ''}"
        )
    return held.error(plan)


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


def _request(plan: SubscriptionPlan) -> ah.SubscribeListingRequest:
    from google.cloud import bigquery_analyticshub_v1 as ah

    return ah.SubscribeListingRequest(
        name=str(plan.listing),
        destination_dataset=ah.DestinationDataset(
            dataset_reference=ah.DestinationDatasetReference(
                project_id=plan.project, dataset_id=plan.dataset_id
            ),
            location=plan.location,
            friendly_name=plan.friendly_name,
        ),
    )
