"""Subscribes projects to listings, which creates their linked datasets."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
)
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.leftovers import removable_leftovers
from octogen_dagster.sharing.listing_identity import ListingIdentity
from octogen_dagster.sharing.resource_names import ListingName, sample_query
from octogen_dagster.sharing.subscription import Subscription
from octogen_dagster.sharing.subscription_plan import SubscriptionPlan, plan_subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        destination_dataset_id: The id of the linked dataset; by default `octogen_<listing id>`.
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

    def __init__(
        self, hub: AnalyticsHub, datasets: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._hub = hub
        self._datasets = datasets
        self._identity = ListingIdentity(hub)
        self._read: dict[tuple[str, str], _ByIds | OctogenBigQueryError] = {}

    def subscribe(
        self,
        plan: SubscriptionPlan,
        *,
        replacing: Callable[[str, str], None] | None = None,
    ) -> BigQuerySubscriptionResult:
        """Carry out a plan.

        Args:
            plan: The plan.
            replacing: Allows to delete revoked subscriptions to the same listing that hold the
                dataset id, each with its linked dataset and the access rights set on it. Called
                before each deletion with the names of the subscription and the dataset. Without
                it, such a subscription is an error.

        Raises:
            OctogenBigQueryAccessPendingError: Octogen's grant on the listing has not arrived yet.
            OctogenBigQueryError: The call failed.
        """
        existing = self.find_existing(plan)
        if existing is not None:
            return existing
        self._check_distinguishable(plan)
        created = self._hub.subscribe(_request(plan))
        if created is not None:
            subscription = Subscription.of(created, self._datasets)
            return _result(subscription, plan, already_subscribed=False)
        # The id is taken: by a faster process, by an attempt whose response was lost, or by others.
        self._read.clear()
        existing = self.find_existing(plan)
        if existing is not None:
            return existing
        leftovers = removable_leftovers(
            plan, self._subscriptions_to(plan), may_delete=replacing is not None
        )
        self._check_granted(plan)
        for subscription in leftovers:
            if replacing is not None:
                replacing(subscription.name, f"{plan.project}.{plan.dataset_id}")
            self._hub.delete(subscription.name)
        self._read.clear()
        return self.subscribe(plan)

    def find_existing(self, plan: SubscriptionPlan) -> BigQuerySubscriptionResult | None:
        """Find the subscription to the plan's listing that gives access to data.

        Returns:
            None if there is none.

        Raises:
            OctogenBigQueryError: The subscriptions cannot be read, or Analytics Hub does not say
                which dataset is linked.
        """
        existing = [each for each in self._subscriptions_to(plan) if each.in_force]
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
        for name, subscription in self._namesakes(plan):
            if subscription.in_force and self._identity.matches(plan.listing, name) is None:
                self._check_granted(plan)
                raise OctogenBigQueryError(
                    f"Listing {plan.listing}: subscription {subscription.name} to {name} is in "
                    "force, and may be to the same listing: one name has the project's id, the "
                    "other its number, and these Google credentials may not read the listing to "
                    "tell. Let an administrator grant them roles/analyticshub.subscriber on it, or "
                    "name the listing as the subscription does. Nothing was changed."
                )

    def _subscriptions_to(self, plan: SubscriptionPlan) -> list[Subscription]:
        """The project's subscriptions to the listing."""
        return [
            subscription
            for name, subscription in self._namesakes(plan)
            if self._identity.matches(plan.listing, name)
        ]

    def _namesakes(self, plan: SubscriptionPlan) -> list[tuple[ListingName, Subscription]]:
        """The project's subscriptions to listings with the ids of the plan's listing."""
        listing = plan.listing
        place = plan.project, listing.location
        if place not in self._read:
            try:
                self._read[place] = self._read_place(*place)
            except OctogenBigQueryError as error:
                # Remembered: reading again would cost each further listing the same time.
                self._read[place] = error
        read = self._read[place]
        if isinstance(read, OctogenBigQueryError):
            raise read.with_traceback(None)
        return read.get((listing.exchange, listing.listing), [])

    def _read_place(self, project: str, location: str) -> _ByIds:
        subscriptions: _ByIds = {}
        for message in self._hub.subscriptions(project, location):
            with contextlib.suppress(OctogenBigQueryInputError):  # one to a whole exchange
                name = ListingName.parse(message.listing)
                entry = name, Subscription.of(message, self._datasets)
                subscriptions.setdefault((name.exchange, name.listing), []).append(entry)
        return subscriptions


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


_ByIds: TypeAlias = dict[tuple[str, str], list[tuple[ListingName, Subscription]]]
"""The names of listings with their subscriptions, by the ids of the exchange and the listing."""


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
