"""subscribe_to_listing: a linked dataset for a listing, once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from octogen_dagster.api.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.names import (
    ListingName,
    checked_dataset_id,
    checked_project,
    sample_query,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.auth.credentials import Credentials
    from google.cloud import bigquery_analyticshub_v1 as ah

_ACTIVE = "STATE_ACTIVE"
_STALE = "STATE_STALE"
_REVOKED = "STATE_INACTIVE"


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
    """

    def __init__(self, hub: AnalyticsHub) -> None:
        self._hub = hub
        self._read: dict[tuple[str, str], _ByIds] = {}

    def subscribe(
        self,
        plan: SubscriptionPlan,
        *,
        replacing: Callable[[str, str | None], None] | None = None,
    ) -> BigQuerySubscriptionResult:
        """Carry out a plan.

        Args:
            plan: What to ask for.
            replacing: Makes revoked subscriptions to the same listing give way when they hold the
                dataset id: each is deleted, and its linked dataset with the access rights set on
                it. Called before that with the subscription's name, and the dataset's if it is
                known. Without it, they are an error.

        Raises:
            OctogenBigQueryAccessPendingError: Octogen's grant on the listing has not arrived yet.
            OctogenBigQueryError: It failed.
        """
        there = self.in_force(plan)
        if there is not None:
            return there
        created = self._hub.subscribe(_request(plan))
        if created is not None:
            return _Entry.of(created).result(plan, already_subscribed=False)
        # The id is taken: by a process that was faster, by a try whose answer was lost, by others.
        self._read.clear()
        there = self.in_force(plan)
        if there is not None:
            return there
        for entry in self._in_the_way(plan, may_delete=replacing is not None):
            if replacing is not None:
                replacing(entry.name, entry.dataset_id and f"{plan.project}.{entry.dataset_id}")
            self._hub.delete(entry.name)
        self._read.clear()
        return self.subscribe(plan)

    def in_force(self, plan: SubscriptionPlan) -> BigQuerySubscriptionResult | None:
        """The subscription to the plan's listing that is there and gives access to data.

        One that is stale may not say its dataset: then the plan's is taken for it.

        Returns:
            None when there is none.

        Raises:
            OctogenBigQueryError: The subscriptions cannot be read, or an active one does not say
                which dataset is linked to it.
        """
        there = [entry for entry in self._to(plan) if entry.in_force]
        if not there:
            return None
        # More than one is rare: the one that was asked for, then one whose data is current.
        best = min(there, key=lambda entry: (entry.dataset_id != plan.dataset_id, entry.state))
        return best.result(plan, already_subscribed=True)

    def _in_the_way(self, plan: SubscriptionPlan, *, may_delete: bool) -> list[_Entry]:
        """The revoked subscriptions to the listing that hold, or may hold, the plan's dataset id.

        Raises:
            OctogenBigQueryError: There is none, or they must not be deleted.
        """
        entries = self._to(plan)
        holders = [entry for entry in entries if entry.dataset_id == plan.dataset_id]
        # Analytics Hub may name the dataset of a subscription only while that is active.
        holders = holders or [entry for entry in entries if entry.dataset_id is None]
        unknown = next((entry for entry in holders if entry.state != _REVOKED), None)
        if may_delete and holders and not unknown:
            return holders
        taken = f"project {plan.project} already has a dataset {plan.dataset_id}, and"
        if unknown:
            problem = (
                f"subscription {unknown.name} to this listing is in state {unknown.state}, which "
                "this version does not know: look at it in the Google console; nothing was changed."
            )
        elif not holders:
            problem = "it is not linked to this listing: choose another dataset id."
        elif holders[0].dataset_id is None:
            problem = (
                f"a revoked subscription {holders[0].name} to this listing is there, which does "
                "not say its dataset: delete it, then subscribe again."
            )
        else:
            problem = (
                f"it is left over from subscription {holders[0].name} to this listing, which was "
                "revoked: delete it, then subscribe again."
            )
        raise OctogenBigQueryError(f"Listing {plan.listing}: {taken} {problem}")

    def _to(self, plan: SubscriptionPlan) -> list[_Entry]:
        """The project's subscriptions to the listing."""
        listing = plan.listing
        place = plan.project, listing.location
        if place not in self._read:
            entries: _ByIds = {}
            for subscription in self._hub.subscriptions(*place):
                with contextlib.suppress(OctogenBigQueryInputError):  # one to a whole exchange
                    name = ListingName.parse(subscription.listing)
                    ids = name.exchange, name.listing
                    entries.setdefault(ids, []).append((name, _Entry.of(subscription)))
            self._read[place] = entries
        namesakes = self._read[place].get((listing.exchange, listing.listing), [])
        return [entry for name, entry in namesakes if self._same(listing, name)]

    def _same(self, one: ListingName, other: ListingName) -> bool:
        """Whether two names are of one listing: projects have an id and a number."""
        same = one.same_as(other)
        return self._looked_up(one, other) if same is None else same

    def _looked_up(self, one: ListingName, other: ListingName) -> bool:
        """Whether Analytics Hub has one listing under both names."""
        mine = self._hub.listing(str(one))
        if mine is None:
            return False
        name = ListingName.parse(mine.name)
        same = name.same_as(other)
        if same is None:
            theirs = self._hub.listing(str(other))
            if theirs is None:
                return False
            same = name.same_as(ListingName.parse(theirs.name))
            if same is None:
                # It answers with the name that it was asked for: then the contents decide.
                mine.name = theirs.name
                same = bool(mine == theirs)
        return same


@dataclass(frozen=True, slots=True)
class _Entry:
    """What counts of a subscription. Its dataset stands in either of two places."""

    name: str
    state: str
    project: str | None
    dataset_id: str | None

    @classmethod
    def of(cls, subscription: ah.Subscription) -> Self:
        reference = subscription.destination_dataset.dataset_reference
        places = [(reference.project_id, reference.dataset_id)]
        for resource in subscription.linked_dataset_map.values():
            _, project, _, dataset_id = (*resource.linked_dataset.split("/"), "", "", "", "")[:4]
            places.append((project, dataset_id))
        named = [place for place in places if place[1]]
        # A project's number cannot stand in a query, its id can.
        ids = [project for project, _ in named if project and not project.isdecimal()]
        return cls(
            name=subscription.name,
            state=getattr(subscription.state, "name", str(subscription.state)),
            project=ids[0] if ids else None,
            dataset_id=named[0][1] if named else None,
        )

    @property
    def in_force(self) -> bool:
        return self.state in (_ACTIVE, _STALE)

    def result(
        self, plan: SubscriptionPlan, *, already_subscribed: bool
    ) -> BigQuerySubscriptionResult:
        dataset_id = self.dataset_id or (plan.dataset_id if self.state == _STALE else None)
        if dataset_id is None:
            raise OctogenBigQueryError(
                f"Listing {plan.listing}: project {plan.project} is subscribed ({self.name}, "
                f"{self.state}), and Analytics Hub does not say which dataset is linked to it. "
                "Look for it in BigQuery, under the project's datasets."
            )
        project = self.project or plan.project
        return BigQuerySubscriptionResult(
            listing_resource=str(plan.listing),
            linked_project=project,
            linked_dataset=dataset_id,
            state=self.state,
            already_subscribed=already_subscribed,
            subscription_name=self.name,
            sample_query=sample_query(project, dataset_id),
        )


_ByIds: TypeAlias = dict[tuple[str, str], list[tuple[ListingName, _Entry]]]
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
