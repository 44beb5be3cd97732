"""The cells: Octogen's knowledge of each subscriber and each shared catalog.

The store says at once whether a catalog may be subscribed to. Octogen learns of a subscription
only when it is told to refresh the cell.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from octogen_dagster.sandbox.hub.names import is_project_id
from octogen_dagster.sandbox.hub.state import Listing, SubscriptionState
from octogen_dagster.sandbox.hub.store import HubStore

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
    """An MCP tool cannot do what was asked.

    Args:
        error: The error code.
        message: The message for the client.
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
    """The subscribers and their cells, over the store of the hub and behind its lock."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._subscribers: dict[tuple[str, str], Subscriber] = {}
        self._known: dict[tuple[str, str], str] = {}
        """Subscriber id and catalog to the subscription that was there at the last refresh."""

    def list_listings(self, catalogs: list[str] | None) -> list[Json]:
        """Return the listings of the shared catalogs.

        Args:
            catalogs: Only these catalogs; None for all.

        Raises:
            ToolFailure: One of the catalogs is not shared.
        """
        shared = {
            listing.catalog: {"catalogKey": listing.catalog, **_place(listing, "<your-project>")}
            for listing in self._store.all_listings()
            if not listing.is_removed
        }
        missing = sorted(set(catalogs or ()) - shared.keys())
        if missing:
            raise ToolFailure("catalog_not_granted", f"{missing[0]!r} has no BigQuery listing")
        return [
            entry for catalog, entry in shared.items() if catalogs is None or catalog in catalogs
        ]

    def list_subscribers(self) -> Json:
        """Return all subscribers with all their cells."""
        with self._store.lock:
            subscribers = list(self._subscribers.values())
            return {
                "subscribers": [_subscriber(subscriber) for subscriber in subscribers],
                "cells": self._cells(subscribers),
            }

    def register(self, project: str, principal: str) -> Json:
        """Register a subscriber if it is not registered; return it with its cells.

        Raises:
            ToolFailure: The project or the principal is not valid.
        """
        if not is_project_id(project):
            raise ToolFailure("invalid_request", f"subscriberProjectId: {project!r}")
        if not _PRINCIPAL.fullmatch(principal):
            raise ToolFailure("invalid_request", f"subscriberPrincipal: {principal!r}")
        with self._store.lock:
            new = Subscriber(f"subscriber-{len(self._subscribers) + 1}", project, principal)
            subscriber = self._subscribers.setdefault((project, principal), new)
            return {"subscriber": _subscriber(subscriber), "cells": self._cells([subscriber])}

    def refresh(self, catalog: str, principal: str) -> Json:
        """Look up the principal's subscription to a catalog and return the cell.

        Raises:
            ToolFailure: The subscriber is not registered, or the catalog was never shared.
        """
        with self._store.lock:
            subscribers = [
                each for each in self._subscribers.values() if each.principal == principal
            ]
            if not subscribers:
                raise ToolFailure("subscriber_not_found", f"{principal} is not registered")
            try:
                listing = self._store.listing_of(catalog)
            except LookupError:
                raise ToolFailure("catalog_not_found", f"{catalog!r} is not shared") from None
            live = {
                subscription.project: subscription.name
                for subscription in self._store.subscriptions()
                if subscription.catalog == catalog and subscription.state != "STATE_INACTIVE"
            }
            for subscriber in subscribers:
                self._known.pop((subscriber.subscriber_id, catalog), None)
                if subscriber.project in live:
                    self._known[subscriber.subscriber_id, catalog] = live[subscriber.project]
            return self._cells(subscribers, [listing])[0]

    def disable(self, principal: str) -> None:
        """Disable the subscribers of a principal.

        Raises:
            LookupError: The principal is not registered.
        """
        with self._store.lock:
            found = {k: s for k, s in self._subscribers.items() if s.principal == principal}
            if not found:
                raise LookupError(f"{principal} is not registered: register it first")
            for key, subscriber in found.items():
                self._subscribers[key] = replace(subscriber, desired_state="disabled")

    def _cells(
        self, subscribers: list[Subscriber], listings: list[Listing] | None = None
    ) -> list[Json]:
        """Return the cells of subscribers, and count that they were read.

        Args:
            subscribers: The subscribers.
            listings: Only the cells of these listings; None for all.
        """
        shown = self._store.all_listings() if listings is None else listings
        states = {each.name: each.state for each in self._store.subscriptions()}
        now = self._store.clock()
        cells = [
            {
                "subscriberId": subscriber.subscriber_id,
                "catalogKey": listing.catalog,
                **self._status(subscriber, listing, states, now),
                **_place(listing, subscriber.project),
                "shareSchema": SHARE_SCHEMA,
                "schemaVersion": SCHEMA_VERSION,
            }
            for subscriber in subscribers
            for listing in shown
        ]
        if subscribers:
            self._store.count_reads(shown)
        return cells

    def _status(
        self,
        subscriber: Subscriber,
        listing: Listing,
        states: dict[str, SubscriptionState],
        now: float,
    ) -> Json:
        if listing.is_removed or subscriber.desired_state == "disabled":
            return {"status": "removing", "reasonCode": "removing"}
        if listing.access == "revoked":
            return {"status": "preparing", "reasonCode": "scope_revoked"}
        if not listing.has_access(now):
            return {"status": "preparing", "reasonCode": "preparing"}
        known = self._known.get((subscriber.subscriber_id, listing.catalog))
        # A subscription that the subscriber deleted counts as active until the next refresh.
        state = states.get(known, "STATE_ACTIVE") if known else "STATE_INACTIVE"
        return {"status": _STATUSES[state], "reasonCode": None}


def _subscriber(subscriber: Subscriber) -> Json:
    return {
        "subscriberId": subscriber.subscriber_id,
        "subscriberProjectId": subscriber.project,
        "subscriberPrincipal": subscriber.principal,
        "desiredState": subscriber.desired_state,
    }


def _place(listing: Listing, project: str) -> Json:
    """Return the fields that say where a catalog is and how to read it from `project`."""
    dataset = "octogen_" + re.sub(r"[^A-Za-z0-9_]", "_", listing.name.listing)
    return {
        "listingResource": str(listing.name),
        "linkedDatasetSuggestion": dataset,
        "location": listing.name.location,
        "sampleQuery": f"SELECT * FROM `{project}.{dataset}.products_current_v1` LIMIT 10;",  # noqa: S608
    }
