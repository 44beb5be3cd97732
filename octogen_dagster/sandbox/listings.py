"""Catalogs and URL lists shared over Analytics Hub, and their subscriptions.

`hub` serves the listings to Google's client, `mcp` serves them to MCP clients, and `bigquery`
serves their views. This module does not contain any wire formats.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from threading import Lock
from typing import Any, Literal

from octogen_dagster.sandbox.catalog import Catalogs
from octogen_dagster.sandbox.exports import View, views_of_catalog

LOCATION = "us"
EXCHANGE_ID = "catalogs"
_EXCHANGE = f"projects/octogen-sandbox/locations/{LOCATION}/dataExchanges/{EXCHANGE_ID}"

Access = Literal["preparing", "granted", "revoked"]


class Refusal(Exception):
    """A rejected Analytics Hub call. The arguments are the name of a gRPC code and a message."""


@dataclass(frozen=True)
class Listing:
    """A shared catalog or URL list, and whether subscribing is allowed."""

    catalog: str  # the key, or the listing ID for a URL list
    name: str
    access: Access
    views: Callable[[], Mapping[str, View]]  # by name; none before a URL list's first export
    is_url_list: bool = False


@dataclass(frozen=True)
class Subscription:
    """The state of a subscription at a given time, and its linked dataset."""

    name: str
    catalog: str
    listing: str
    project: str
    dataset: str
    is_active: bool = True


@dataclass
class HubCall:
    """A call to an Analytics Hub method or an MCP tool."""

    method: str
    outcome: str | None = None


class Listings:
    """Listings and subscriptions, protected by one lock. Tests can change them with the methods.

    Methods that take a catalog key also accept the listing ID of a URL list. They raise LookupError
    if the catalog or URL list was never shared. Methods for subscribers raise Refusal.
    """

    exchange = _EXCHANGE
    """Resource name of the data exchange that contains all listings."""

    def __init__(self, catalogs: Catalogs) -> None:
        self.readers: dict[tuple[str, str], dict[str, Any]] = {}  # by project and principal
        self._catalogs = catalogs
        self._lock = Lock()
        self._serials = count(1)
        self._listings: dict[str, Listing] = {}  # by resource name
        self._subscriptions: dict[tuple[str, str], Subscription] = {}  # by project and dataset
        self._calls: deque[HubCall] = deque(maxlen=20_000)

    @property
    def calls(self) -> list[HubCall]:
        """The latest 20,000 calls of both services, in order of arrival."""
        return [replace(call) for call in list(self._calls)]

    @property
    def listings(self) -> list[Listing]:
        """All listings, in order of creation."""
        return list(self._listings.values())

    @property
    def subscriptions(self) -> list[Subscription]:
        """All subscriptions in all projects, in order of creation."""
        return list(self._subscriptions.values())

    def datasets(self, project: str) -> dict[str, str]:
        """Return a project's linked datasets, as a mapping from dataset ID to subscription name."""
        return {each.dataset: each.name for each in self.subscriptions if each.project == project}

    def share(self, catalog: str, *, granted: bool = True) -> str:
        """Share a catalog by creating a listing. Return the listing's resource name.

        The sandbox does not need to serve the catalog over REST. With `granted=False`, subscribing
        is not allowed until you call `grant_access`. The listing ID is the catalog key. Characters
        other than letters, digits, `_` and `-` are replaced with `_`.

        Raises:
            ValueError: The catalog is already shared.
        """
        name = _listing_name(catalog)
        with self._lock:
            if existing := self._listings.get(name):
                raise ValueError(f"catalog {existing.catalog!r} is already shared as {name}")
            access: Access = "granted" if granted else "preparing"
            views = partial(views_of_catalog, catalog, self._catalogs)
            self._listings[name] = Listing(catalog, name, access, views)
        return name

    def share_url_list(self, listing_id: str, views: Callable[[], Mapping[str, View]]) -> None:
        """Share a URL list."""
        name = _listing_name(listing_id)
        with self._lock:
            self._listings[name] = Listing(listing_id, name, "granted", views, is_url_list=True)

    def remove_url_list(self, listing_id: str) -> None:
        """Revoke access to a URL list and remove its listing."""
        self.revoke_access(listing_id)
        with self._lock:
            del self._listings[_listing_name(listing_id)]

    def views(self, project: str, dataset: str) -> Mapping[str, View]:
        """Return a linked dataset's views by name."""
        subscription = self._subscriptions.get((project, dataset))
        if subscription is None:
            raise Refusal("NOT_FOUND", f"Not found: Dataset {project}:{dataset}")
        if not subscription.is_active:
            message = f"Access Denied: Dataset {project}:{dataset}: its subscription has ended."
            raise Refusal("PERMISSION_DENIED", message)
        return self.find(subscription.listing).views()

    def listing_resource(self, catalog: str) -> str:
        """Return a catalog's listing resource name."""
        return self._listing_of(catalog).name

    def grant_access(self, catalog: str) -> None:
        """Allow subscribing to a catalog."""
        self._set_access(catalog, "granted")

    def revoke_access(self, catalog: str) -> None:
        """Disallow subscribing to a catalog, and deactivate its subscriptions.

        The IDs of the linked datasets cannot be used again.
        """
        self._set_access(catalog, "revoked")
        with self._lock:
            for place, subscription in self._subscriptions.items():
                if subscription.catalog == catalog:
                    self._subscriptions[place] = replace(subscription, is_active=False)

    def log(self, call: HubCall) -> HubCall:
        """Append a call to `calls` and return the call, so that its outcome can be set later."""
        self._calls.append(call)
        return call

    def find(self, name: str) -> Listing:
        """Return the listing with a resource name.

        Octogen's production project and an uppercase location also match, because a URL list does
        not name its project or location.
        """
        own = name.replace("/octogen-catalog-exchange/", "/octogen-sandbox/")
        if listing := self._listings.get(own.replace("/locations/US/", f"/locations/{LOCATION}/")):
            return listing
        raise Refusal("NOT_FOUND", f"Listing not found: {name}.")

    def subscribe(self, name: str, project: str, dataset: str) -> Subscription:
        """Subscribe to a listing and create its linked dataset."""
        with self._lock:
            listing = self.find(name)
            if listing.access != "granted":
                raise Refusal(
                    "PERMISSION_DENIED",
                    f"Permission 'analyticshub.listings.subscribe' denied on resource '{name}'.",
                )
            if (project, dataset) in self._subscriptions:
                raise Refusal("ALREADY_EXISTS", f"Already Exists: Dataset {project}:{dataset}")
            parent = f"projects/{project}/locations/{LOCATION}"
            subscription = Subscription(
                name=f"{parent}/subscriptions/{dataset}_{next(self._serials):06d}",
                catalog=listing.catalog,
                listing=listing.name,
                project=project,
                dataset=dataset,
            )
            self._subscriptions[project, dataset] = subscription
            return subscription

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription and its linked dataset."""
        with self._lock:
            for place, subscription in self._subscriptions.items():
                if subscription.name == name:
                    del self._subscriptions[place]
                    return
        raise Refusal("NOT_FOUND", f"Subscription not found: {name}.")

    def _listing_of(self, catalog: str) -> Listing:
        listing = self._listings.get(_listing_name(catalog))
        if listing is None or listing.catalog != catalog:
            shared = ", ".join(each.catalog for each in self.listings[:10]) or "none"
            raise LookupError(
                f"catalog {catalog!r} is not shared: share it first. Shared: {shared}"
            )
        return listing

    def _set_access(self, catalog: str, access: Access) -> None:
        with self._lock:
            listing = self._listing_of(catalog)
            self._listings[listing.name] = replace(listing, access=access)


def _listing_name(catalog: str) -> str:
    return f"{_EXCHANGE}/listings/{re.sub(r'[^A-Za-z0-9_-]', '_', catalog)}"
