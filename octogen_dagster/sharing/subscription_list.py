"""Reads the subscriptions of projects, and finds those to one listing or of one dataset."""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.listing_identity import ListingIdentity
from octogen_dagster.sharing.resource_names import ListingName
from octogen_dagster.sharing.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Mapping

    from octogen_dagster.sharing.analytics_hub import AnalyticsHub
    from octogen_dagster.sharing.subscription_plan import SubscriptionPlan

_ByIds: TypeAlias = "dict[tuple[str, str], list[tuple[ListingName, Subscription]]]"
"""The names of listings with their subscriptions, by the ids of the exchange and the listing."""


class SubscriptionList:
    """The subscriptions of projects. Those of a project and location are read once.

    Args:
        hub: Analytics Hub.
        datasets: Ids of linked datasets that are known from elsewhere, by subscription name.
    """

    def __init__(
        self, hub: AnalyticsHub, datasets: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._hub = hub
        self._datasets = datasets
        self._identity = ListingIdentity(hub)
        self._read: dict[tuple[str, str], _ByIds | OctogenBigQueryError] = {}

    def forget(self) -> None:
        """Read again what is asked for next."""
        self._read.clear()

    def to_listing(self, plan: SubscriptionPlan) -> list[Subscription]:
        """The project's subscriptions to the plan's listing.

        Args:
            plan: The plan.

        Raises:
            OctogenBigQueryError: The subscriptions or the listings cannot be read.
        """
        return [
            subscription
            for name, subscription in self._namesakes(plan)
            if self._identity.matches(plan.listing, name)
        ]

    def indistinguishable(self, plan: SubscriptionPlan) -> tuple[ListingName, Subscription] | None:
        """A subscription in force that may be to the plan's listing, with the listing's name in it.

        Args:
            plan: The plan.

        Returns:
            None if each subscription is known to be to the listing or to another one.

        Raises:
            OctogenBigQueryError: The subscriptions or the listings cannot be read.
        """
        for name, subscription in self._namesakes(plan):
            if subscription.in_force and self._identity.matches(plan.listing, name) is None:
                return name, subscription
        return None

    def other_listing(self, plan: SubscriptionPlan, location: str) -> ListingName | None:
        """The listing whose subscription has the plan's dataset, if it is not the plan's listing.

        Args:
            plan: The plan.
            location: The BigQuery location of the dataset.

        Raises:
            OctogenBigQueryError: The subscriptions or the listings cannot be read.
        """
        for entries in self._read_once(plan.project, location).values():
            for name, subscription in entries:
                if (
                    subscription.dataset_id == plan.dataset_id
                    and self._identity.matches(plan.listing, name) is False
                ):
                    return name
        return None

    def _namesakes(self, plan: SubscriptionPlan) -> list[tuple[ListingName, Subscription]]:
        """The project's subscriptions to listings with the ids of the plan's listing."""
        listing = plan.listing
        read = self._read_once(plan.project, listing.location)
        return read.get((listing.exchange, listing.listing), [])

    def _read_once(self, project: str, location: str) -> _ByIds:
        place = project, location
        if place not in self._read:
            try:
                self._read[place] = self._read_place(project, location)
            except OctogenBigQueryError as error:
                # Remembered: reading again would cost each further listing the same time.
                self._read[place] = error
        read = self._read[place]
        if isinstance(read, OctogenBigQueryError):
            raise read.with_traceback(None)
        return read

    def _read_place(self, project: str, location: str) -> _ByIds:
        subscriptions: _ByIds = {}
        for message in self._hub.subscriptions(project, location):
            with contextlib.suppress(OctogenBigQueryInputError):  # one to a whole exchange
                name = ListingName.parse(message.listing)
                entry = name, Subscription.of(message, self._datasets)
                subscriptions.setdefault((name.exchange, name.listing), []).append(entry)
        return subscriptions
