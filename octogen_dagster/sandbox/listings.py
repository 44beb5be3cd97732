"""The catalogs that the sandbox shares over Analytics Hub, and the subscriptions to them.

`hub` serves them to Google's client and `mcp` to MCP clients. This file knows no wire format.
"""

import hashlib
import re
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from itertools import count
from threading import Lock
from typing import Any, Literal

_PUBLISHER, _LOCATION, _EXCHANGE = "octogen-sandbox", "us", "catalogs"
_DATASET_ID = re.compile(r"[A-Za-z0-9_]{1,1024}")

Access = Literal["preparing", "granted", "revoked", "removed"]
State = Literal["STATE_ACTIVE", "STATE_STALE", "STATE_INACTIVE"]


class Refusal(Exception):
    """A call of Analytics Hub is refused; its arguments are the name of a gRPC code and a text."""


@dataclass(frozen=True)
class Listing:
    """A catalog that was shared, and whether it may be subscribed to."""

    catalog: str
    name: str
    access: Access

    @property
    def location(self) -> str:
        return self.name.split("/")[3]


@dataclass(frozen=True)
class Subscription:
    """A subscription at one moment; `listing` has the id of the publisher's project."""

    name: str
    catalog: str
    listing: str
    project: str
    dataset: str
    location: str
    friendly_name: str
    state: State


@dataclass
class HubCall:
    """A call of one of the hub's services: of Analytics Hub, a tool, or the token endpoint.

    The outcome is `OK`, a gRPC code such as `PERMISSION_DENIED`, `error` for a tool that failed,
    `-32029` for one beyond the rate limit, or `400` for a token that is not known.
    """

    surface: Literal["grpc", "mcp", "token"]
    method: str  # the gRPC method, the tool, or `token`
    arguments: dict[str, Any]  # of a token request the grant type and the client
    outcome: str | None = None


class Listings:
    """Listings and subscriptions behind one lock, with the methods by which a test changes them.

    A method that takes the key of a catalog raises LookupError if it was never shared. What serves
    a subscriber raises Refusal.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._serials = count(1)
        self._listings: dict[str, Listing] = {}  # by resource name
        self._subscriptions: dict[str, Subscription] = {}
        self._datasets: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._calls: deque[HubCall] = deque(maxlen=20_000)

    @property
    def calls(self) -> list[HubCall]:
        """The latest 20,000 calls of all services, in order of arrival."""
        return [replace(call) for call in list(self._calls)]

    @property
    def exchange(self) -> str:
        """The resource name of the data exchange in which catalogs are shared."""
        return f"projects/{_PUBLISHER}/locations/{_LOCATION}/dataExchanges/{_EXCHANGE}"

    @property
    def listings(self) -> list[Listing]:
        """The listings of all catalogs in order of creation, including removed ones."""
        return list(self._listings.values())

    @property
    def subscriptions(self) -> list[Subscription]:
        """All subscriptions of all projects, in order of creation."""
        return list(self._subscriptions.values())

    def datasets(self, project: str) -> dict[str, str]:
        """Return the name of the subscription of each linked dataset of a project, by its id."""
        return dict(self._datasets[project])

    def share(self, catalog: str, *, granted: bool = True) -> str:
        """Share a catalog: create its listing, and return the listing's resource name.

        The sandbox need not serve the catalog over REST. Without `granted` the right to subscribe
        arrives later, by `grant_access`. The listing's id is the key, with `_` for all but letters,
        digits, `_` and `-`. A catalog that is shared already is a ValueError.
        """
        name = self._name(catalog)
        with self._lock:
            there = self._listings.get(name)
            if there is not None and there.access != "removed":
                raise ValueError(
                    f"catalog {catalog!r} cannot be shared as {name}: catalog {there.catalog!r} is "
                    "shared under that name: remove that listing first"
                )
            self._listings.pop(name, None)  # so that the new one is the last
            self._listings[name] = Listing(catalog, name, "granted" if granted else "preparing")
        return name

    def listing_resource(self, catalog: str) -> str:
        """Return the resource name of a catalog's listing."""
        return self._listing_of(catalog).name

    def grant_access(self, catalog: str) -> None:
        """Give the right to subscribe now."""
        self._set_access(catalog, "granted")

    def revoke_access(self, catalog: str) -> None:
        """Take the right to subscribe away, and make the catalog's subscriptions inactive.

        The ids of the linked datasets stay taken.
        """
        self._set_access(catalog, "revoked")
        self._set_states(catalog, "STATE_INACTIVE")

    def remove_listing(self, catalog: str) -> None:
        """Delete the listing of a catalog, and make its subscriptions inactive."""
        self._set_access(catalog, "removed")
        self._set_states(catalog, "STATE_INACTIVE")

    def make_stale(self, catalog: str) -> None:
        """Make the active subscriptions of a catalog stale."""
        self._listing_of(catalog)
        self._set_states(catalog, "STATE_STALE", only="STATE_ACTIVE")

    def log(self, call: HubCall) -> HubCall:
        """Append a call to `calls` and return it, so that its outcome can be set."""
        self._calls.append(call)
        return call

    def with_project_id(self, name: str) -> str:
        """Return a resource name with the project's id where it may have its number."""
        return name.replace(f"projects/{project_number(_PUBLISHER)}/", f"projects/{_PUBLISHER}/")

    def find(self, name: str) -> Listing:
        """Return the listing of a resource name."""
        listing = self._listings.get(self.with_project_id(name))
        if listing is None or listing.access == "removed":
            raise Refusal("NOT_FOUND", f"Listing not found: {name}.")
        return listing

    def subscribe(
        self, name: str, project: str, dataset: str, location: str, friendly_name: str
    ) -> Subscription:
        """Subscribe to a listing and create its linked dataset."""
        if not _DATASET_ID.fullmatch(dataset):
            raise Refusal("INVALID_ARGUMENT", f"Invalid dataset ID {dataset!r}.")
        with self._lock:
            listing = self.find(name)
            if listing.access != "granted":
                raise Refusal(
                    "PERMISSION_DENIED",
                    f"Permission 'analyticshub.listings.subscribe' denied on resource '{name}'.",
                )
            if location.lower() != listing.location.lower():
                raise Refusal(
                    "INVALID_ARGUMENT",
                    f"The destination is in {location!r}, the data in {listing.location!r}.",
                )
            if dataset in self._datasets[project]:
                raise Refusal("ALREADY_EXISTS", f"Already Exists: Dataset {project}:{dataset}")
            parent = f"projects/{project}/locations/{listing.location}"
            subscription = Subscription(
                name=f"{parent}/subscriptions/{dataset}_{next(self._serials):06d}",
                catalog=listing.catalog,
                listing=listing.name,
                project=project,
                dataset=dataset,
                location=listing.location,
                friendly_name=friendly_name,
                state="STATE_ACTIVE",
            )
            self._subscriptions[subscription.name] = subscription
            self._datasets[project][dataset] = subscription.name
            return subscription

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription and its linked dataset."""
        with self._lock:
            subscription = self._subscriptions.pop(name, None)
            if subscription is None:
                raise Refusal("NOT_FOUND", f"Subscription not found: {name}.")
            del self._datasets[subscription.project][subscription.dataset]

    def _name(self, catalog: str) -> str:
        return f"{self.exchange}/listings/{re.sub(r'[^A-Za-z0-9_-]', '_', catalog)}"

    def _listing_of(self, catalog: str) -> Listing:
        listing = self._listings.get(self._name(catalog))
        if listing is None or listing.catalog != catalog:
            shared = ", ".join(each.catalog for each in self.listings[:10]) or "none"
            raise LookupError(
                f"catalog {catalog!r} is not shared; shared: {shared}: share it first"
            )
        return listing

    def _set_access(self, catalog: str, access: Access) -> None:
        with self._lock:
            listing = self._listing_of(catalog)
            self._listings[listing.name] = replace(listing, access=access)

    def _set_states(self, catalog: str, state: State, only: State | None = None) -> None:
        with self._lock:
            for name, subscription in self._subscriptions.items():
                if subscription.catalog == catalog and only in (None, subscription.state):
                    self._subscriptions[name] = replace(subscription, state=state)


def project_number(project: str) -> str:
    """Return the number of a project: twelve digits, the same in every process."""
    digest = hashlib.sha256(project.encode()).digest()
    return str(10**11 + int.from_bytes(digest[:8], "big") % (9 * 10**11))
