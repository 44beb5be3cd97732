"""What Octogen knows of the subscribers of its catalogs: a cell for each subscriber and catalog.

Whether a cell may be subscribed to is read from `hub_state`. Whether it was subscribed to,
Octogen learns only when it is asked to look.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from octogen_dagster.sandbox.hub.names import is_project_id
from octogen_dagster.sandbox.hub.state import HubState, Listing, SubscriptionState

Json = dict[str, Any]

SHARE_SCHEMA = "exported_product_view"
SCHEMA_VERSION = "v1"
_STATUSES: dict[SubscriptionState, str] = {
    "STATE_ACTIVE": "active",
    "STATE_STALE": "source_stale",
    "STATE_INACTIVE": "awaiting_subscription",
}
_PRINCIPAL = re.compile(r"(serviceAccount|user|group):[^@\s]+@[^@\s]+")


class ToolFailure(Exception):
    """A tool that does not do what it was asked.

    Args:
        error: The code of the failure.
        message: What the client reads.
    """

    def __init__(self, error: str, message: str) -> None:
        super().__init__(error, message)
        self.error = error
        self.message = message


@dataclass(frozen=True)
class Subscriber:
    """A principal that reads Octogen's catalogs from a project of its own."""

    subscriber_id: str
    project: str
    principal: str
    desired_state: Literal["enabled", "disabled"] = "enabled"


class HubCells:
    """Subscribers and their cells, over the state of Analytics Hub and behind its lock."""

    def __init__(self, state: HubState) -> None:
        self._state = state
        self._subscribers: dict[tuple[str, str], Subscriber] = {}
        self._seen: dict[tuple[str, str], str] = {}
        """Subscriber id and catalog to the name of the subscription that was last seen."""

    def list_listings(self, catalogs: list[str] | None) -> list[Json]:
        """The listings of all shared catalogs, or of those named."""
        wanted = None if catalogs is None else set(catalogs)
        return [
            {"catalogKey": listing.catalog, **_where(listing, "<your-project>")}
            for listing in self._state.all_listings()
            if not listing.is_removed and (wanted is None or listing.catalog in wanted)
        ]

    def list_subscribers(self) -> Json:
        """All subscribers with all their cells."""
        with self._state.lock:
            subscribers = list(self._subscribers.values())
            return {
                "subscribers": [_subscriber(subscriber) for subscriber in subscribers],
                "cells": self._cells(subscribers),
            }

    def register(self, project: str, principal: str) -> Json:
        """Make a subscriber known, if it is not.

        Raises:
            ToolFailure: That is no project or no principal.
        """
        if not is_project_id(project):
            raise ToolFailure("invalid_request", f"subscriberProjectId: {project!r}")
        if not _PRINCIPAL.fullmatch(principal):
            raise ToolFailure("invalid_request", f"subscriberPrincipal: {principal!r}")
        with self._state.lock:
            new = Subscriber(f"subscriber-{len(self._subscribers) + 1}", project, principal)
            subscriber = self._subscribers.setdefault((project, principal), new)
            return {"subscriber": _subscriber(subscriber), "cells": self._cells([subscriber])}

    def refresh(self, catalog: str, principal: str) -> Json:
        """Look whether a subscriber has subscribed to a catalog; returns the cell.

        Raises:
            ToolFailure: There is no such subscriber or catalog.
        """
        with self._state.lock:
            subscribers = [
                each for each in self._subscribers.values() if each.principal == principal
            ]
            if not subscribers:
                raise ToolFailure("subscriber_not_found", f"{principal} is not registered")
            try:
                listing = self._state.listing_of(catalog)
            except LookupError as error:
                raise ToolFailure("catalog_not_found", str(error)) from None
            live = {
                subscription.project: subscription.name
                for subscription in self._state.subscriptions()
                if subscription.catalog == catalog and subscription.state != "STATE_INACTIVE"
            }
            for subscriber in subscribers:
                self._seen.pop((subscriber.subscriber_id, catalog), None)
                if subscriber.project in live:
                    self._seen[subscriber.subscriber_id, catalog] = live[subscriber.project]
            return self._cells(subscribers, [listing])[0]

    def disable(self, principal: str) -> None:
        """Disable the subscribers of a principal.

        Raises:
            LookupError: There are none.
        """
        with self._state.lock:
            found = {k: s for k, s in self._subscribers.items() if s.principal == principal}
            if not found:
                raise LookupError(f"{principal} is not registered")
            for key, subscriber in found.items():
                self._subscribers[key] = replace(subscriber, desired_state="disabled")

    def _cells(
        self, subscribers: list[Subscriber], listings: list[Listing] | None = None
    ) -> list[Json]:
        """The cells of subscribers, of all listings or some, which are thereby read."""
        shown = self._state.all_listings() if listings is None else listings
        states = {each.name: each.state for each in self._state.subscriptions()}
        now = self._state.clock()
        cells = [
            {
                "subscriberId": subscriber.subscriber_id,
                "catalogKey": listing.catalog,
                **self._status(subscriber, listing, states, now),
                **_where(listing, subscriber.project),
                "shareSchema": SHARE_SCHEMA,
                "schemaVersion": SCHEMA_VERSION,
            }
            for subscriber in subscribers
            for listing in shown
        ]
        if subscribers:
            self._state.note_reads(shown)
        return cells

    def _status(
        self,
        subscriber: Subscriber,
        listing: Listing,
        states: dict[str, SubscriptionState],
        now: float,
    ) -> Json:
        if listing.is_removed:
            return {"status": "pending", "reasonCode": "removing"}
        if listing.access == "revoked":
            return {"status": "pending", "reasonCode": "scope_revoked"}
        if not listing.has_access(now):
            return {"status": "pending", "reasonCode": None}
        seen = self._seen.get((subscriber.subscriber_id, listing.catalog))
        # One that the subscriber deleted is taken for active until the next look.
        state = states.get(seen, "STATE_ACTIVE") if seen else "STATE_INACTIVE"
        return {"status": _STATUSES[state], "reasonCode": None}


def _subscriber(subscriber: Subscriber) -> Json:
    return {
        "subscriberId": subscriber.subscriber_id,
        "subscriberProjectId": subscriber.project,
        "subscriberPrincipal": subscriber.principal,
        "desiredState": subscriber.desired_state,
    }


def _where(listing: Listing, project: str) -> Json:
    """Where a catalog is, and how to read it from `project`."""
    dataset = "octogen_" + re.sub(r"[^A-Za-z0-9_]", "_", listing.name.listing)
    return {
        "listingResource": str(listing.name),
        "linkedDatasetSuggestion": dataset,
        "location": listing.name.location,
        "sampleQuery": f"SELECT * FROM `{project}.{dataset}.products_current_v1` LIMIT 10;",  # noqa: S608
    }
