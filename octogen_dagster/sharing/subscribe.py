"""subscribe_to_listing: a linked dataset for a listing, once."""

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
from octogen_dagster.sharing.listing_identity import ListingIdentity
from octogen_dagster.sharing.resource_names import (
    ListingName,
    checked_dataset_id,
    checked_project,
    sample_query,
)
from octogen_dagster.sharing.subscription import REVOKED, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.auth.credentials import Credentials
    from google.cloud import bigquery_analyticshub_v1 as ah


@dataclass(frozen=True, slots=True)
class BigQuerySubscriptionResult:
    """A listing's linked dataset.

    Attributes:
        listing_resource: The listing that was asked for.
        linked_project: The project of the linked dataset.
        linked_dataset: The id of the linked dataset.
        state: State of the subscription: `STATE_ACTIVE` or `STATE_STALE`.
        already_subscribed: Whether it was there before.
        subscription_name: Resource name of the subscription.
        sample_query: A first query to the linked dataset.
    """

    listing_resource: str
    linked_project: str
    linked_dataset: str
    state: str
    already_subscribed: bool
    subscription_name: str
    sample_query: str


@dataclass(frozen=True, slots=True)
class SubscriptionPlan:
    """What subscribing to a listing will ask for; `planned` makes one.

    Attributes:
        listing: The listing.
        project: The project that the linked dataset is created in.
        dataset_id: The id of the linked dataset.
        location: Its location.
        friendly_name: Its display name.
    """

    listing: ListingName
    project: str
    dataset_id: str
    location: str
    friendly_name: str


def planned(
    listing_resource: str,
    destination_project: str,
    destination_dataset_id: str | None = None,
    location: str | None = None,
    friendly_name: str | None = None,
) -> SubscriptionPlan:
    """The plan for a listing, with what was left out taken from its name.

    Raises:
        OctogenBigQueryInputError: A name cannot be one.
    """
    listing = ListingName.parse(listing_resource)
    dataset_id = checked_dataset_id(destination_dataset_id or listing.default_dataset_id)
    return SubscriptionPlan(
        listing=listing,
        project=checked_project(destination_project),
        dataset_id=dataset_id,
        location=location or listing.location,
        friendly_name=friendly_name or f"Octogen {dataset_id}",
    )


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

    A subscription of the project to the same listing that is there already is returned as it is,
    whatever its dataset is called.

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
        OctogenBigQueryInputError: A name cannot be one; nothing was sent.
        OctogenBigQueryError: Anything else that went wrong.
    """
    plan = planned(
        listing_resource, destination_project, destination_dataset_id, location, friendly_name
    )
    with AnalyticsHub(credentials) as hub:
        return Subscriptions(hub).subscribe(plan)


class Subscriptions:
    """The subscriptions of projects: read once, and made.

    Use one for a pass over many listings, and a new one for the next pass.

    Args:
        hub: Analytics Hub.
        datasets: Ids of linked datasets that are known from elsewhere, by the subscription's name:
            Analytics Hub may name the dataset of a subscription only while that is active.
    """

    def __init__(
        self, hub: AnalyticsHub, datasets: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._hub = hub
        self._datasets = datasets
        self._same = ListingIdentity(hub)
        self._read: dict[tuple[str, str], _ByIds | OctogenBigQueryError] = {}

    def subscribe(
        self,
        plan: SubscriptionPlan,
        *,
        replacing: Callable[[str, str], None] | None = None,
    ) -> BigQuerySubscriptionResult:
        """Carry out a plan.

        Args:
            plan: What to ask for.
            replacing: Makes revoked subscriptions to the same listing give way when they hold the
                dataset id: each is deleted, and its linked dataset with the access rights set on
                it. Called before that with the names of the subscription and the dataset. Without
                it, they are an error.

        Raises:
            OctogenBigQueryAccessPendingError: Octogen's grant on the listing has not arrived yet.
            OctogenBigQueryError: It failed.
        """
        there = self.in_force(plan)
        if there is not None:
            return there
        self._check_told_apart(plan)
        created = self._hub.subscribe(_request(plan))
        if created is not None:
            entry = Subscription.of(created, self._datasets)
            return _result(entry, plan, already_subscribed=False)
        # The id is taken: by a process that was faster, by a try whose answer was lost, by others.
        self._read.clear()
        there = self.in_force(plan)
        if there is not None:
            return there
        left_over = self._in_the_way(plan, may_delete=replacing is not None)
        self._check_granted(plan)
        for entry in left_over:
            if replacing is not None:
                replacing(entry.name, f"{plan.project}.{plan.dataset_id}")
            self._hub.delete(entry.name)
        self._read.clear()
        return self.subscribe(plan)

    def in_force(self, plan: SubscriptionPlan) -> BigQuerySubscriptionResult | None:
        """The subscription to the plan's listing that is there and gives access to data.

        Returns:
            None when there is none.

        Raises:
            OctogenBigQueryError: The subscriptions cannot be read, or it is not known which
                dataset is linked to this one.
        """
        there = [entry for entry in self._to(plan) if entry.in_force]
        if not there:
            return None
        # More than one is rare: the one that was asked for, then one whose data is current.
        best = min(
            there,
            key=lambda entry: (
                entry.dataset_id != plan.dataset_id,
                entry.dataset_id is None,
                entry.state,
            ),
        )
        return _result(best, plan, already_subscribed=True)

    def _check_granted(self, plan: SubscriptionPlan) -> None:
        """The plan could be carried out, as far as the grant on the listing goes.

        Raises:
            OctogenBigQueryAccessPendingError: It could not.
        """
        if not self._hub.may_subscribe(str(plan.listing)):
            raise OctogenBigQueryAccessPendingError(
                f"Listing {plan.listing} as dataset {plan.project}.{plan.dataset_id}: Octogen's "
                "grant has not arrived yet, and nothing was changed. It is asynchronous: try again "
                "in a few minutes."
            )

    def _check_told_apart(self, plan: SubscriptionPlan) -> None:
        """No subscription in force may be to the listing without anybody being able to tell.

        Raises:
            OctogenBigQueryAccessPendingError: One is, and the listing is not granted yet.
            OctogenBigQueryError: One is.
        """
        for name, entry in self._namesakes(plan):
            if entry.in_force and self._same(plan.listing, name) is None:
                self._check_granted(plan)
                raise OctogenBigQueryError(
                    f"Listing {plan.listing}: subscription {entry.name} to {name} is in force, and "
                    "may be to the same listing: one name has the project's id, the other its "
                    "number, and these Google credentials may not read the listing to tell. Let "
                    "an administrator grant them roles/analyticshub.subscriber on it, or name the "
                    "listing as the subscription does. Nothing was changed."
                )

    def _in_the_way(self, plan: SubscriptionPlan, *, may_delete: bool) -> list[Subscription]:
        """The revoked subscriptions to the listing that hold the plan's dataset id.

        Raises:
            OctogenBigQueryError: There is none, or they must not be deleted.
        """
        entries = self._to(plan)
        holders = [entry for entry in entries if entry.dataset_id == plan.dataset_id]
        silent = [entry for entry in entries if entry.dataset_id is None]
        unknown = next((entry for entry in holders or silent if entry.state != REVOKED), None)
        if may_delete and holders and not unknown:
            return holders
        taken = f"project {plan.project} already has a dataset {plan.dataset_id}, and"
        if unknown:
            problem = (
                f"subscription {unknown.name} to this listing is in state {unknown.state}, which "
                "this version does not know: look at it in the Google console; nothing was changed."
            )
        elif holders:
            problem = (
                f"it is left over from subscription {holders[0].name} to this listing, which was "
                "revoked: delete it, then subscribe again."
            )
        elif silent:
            problem = (
                f"a revoked subscription {silent[0].name} to this listing is there, which does "
                "not say its dataset: if it is this one, delete that subscription, then subscribe "
                "again; if not, choose another dataset id."
            )
        else:
            problem = "it is not linked to this listing: choose another dataset id."
        raise OctogenBigQueryError(f"Listing {plan.listing}: {taken} {problem}")

    def _to(self, plan: SubscriptionPlan) -> list[Subscription]:
        """The project's subscriptions to the listing."""
        return [entry for name, entry in self._namesakes(plan) if self._same(plan.listing, name)]

    def _namesakes(self, plan: SubscriptionPlan) -> list[tuple[ListingName, Subscription]]:
        """The project's subscriptions to listings whose ids are those of the plan's."""
        listing = plan.listing
        place = plan.project, listing.location
        if place not in self._read:
            try:
                self._read[place] = self._in(*place)
            except OctogenBigQueryError as error:
                self._read[place] = error  # it would cost every other listing the same time
        read = self._read[place]
        if isinstance(read, OctogenBigQueryError):
            raise read.with_traceback(None)
        return read.get((listing.exchange, listing.listing), [])

    def _in(self, project: str, location: str) -> _ByIds:
        entries: _ByIds = {}
        for subscription in self._hub.subscriptions(project, location):
            with contextlib.suppress(OctogenBigQueryInputError):  # one to a whole exchange
                name = ListingName.parse(subscription.listing)
                entry = Subscription.of(subscription, self._datasets)
                entries.setdefault((name.exchange, name.listing), []).append((name, entry))
        return entries


def _result(
    entry: Subscription, plan: SubscriptionPlan, *, already_subscribed: bool
) -> BigQuerySubscriptionResult:
    if entry.dataset_id is None:
        raise OctogenBigQueryError(
            f"Listing {plan.listing}: project {plan.project} is subscribed ({entry.name}, "
            f"{entry.state}), and Analytics Hub does not say which dataset is linked to it. "
            "Look for it in BigQuery, under the project's datasets."
        )
    project = entry.project or plan.project
    return BigQuerySubscriptionResult(
        listing_resource=str(plan.listing),
        linked_project=project,
        linked_dataset=entry.dataset_id,
        state=entry.state,
        already_subscribed=already_subscribed,
        subscription_name=entry.name,
        sample_query=sample_query(project, entry.dataset_id),
    )


_ByIds: TypeAlias = dict[tuple[str, str], list[tuple[ListingName, Subscription]]]
"""Subscriptions by the ids of the exchange and the listing."""


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
