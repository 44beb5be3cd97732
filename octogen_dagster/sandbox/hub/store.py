"""The store of the hub: all exchanges, listings, subscriptions and datasets, behind one lock.

It knows no wire format. `cells` adds what Octogen knows of its subscribers.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from threading import RLock

from octogen_dagster.sandbox.hub.names import (
    ExchangeName,
    ListingName,
    Refusal,
    is_dataset_id,
    is_project_id,
    project_number,
)
from octogen_dagster.sandbox.hub.state import (
    Destination,
    GrantAfter,
    Listing,
    Subscription,
    SubscriptionState,
)


@dataclass
class HubStore:
    """Everything that exists in Analytics Hub.

    Attributes:
        lock: A reentrant lock that is held while the store is read or changed.
        clock: Returns seconds that never go back.
    """

    lock: RLock = field(default_factory=RLock)
    clock: Callable[[], float] = time.monotonic
    _serials: "count[int]" = field(default_factory=lambda: count(1))
    _projects: dict[str, str] = field(default_factory=dict)
    _exchanges: dict[ExchangeName, dict[str, None]] = field(default_factory=dict)
    _listings: dict[str, Listing] = field(default_factory=dict)
    _catalogs: dict[ListingName, str] = field(default_factory=dict)
    _subscriptions: dict[str, Subscription] = field(default_factory=dict)
    _datasets: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def open_exchange(self, exchange: ExchangeName) -> None:
        """Create a data exchange if it does not exist."""
        with self.lock:
            self._projects[project_number(exchange.project)] = exchange.project
            self._exchanges.setdefault(exchange, {})

    def share(
        self, catalog: str, grant: GrantAfter, exchange: ExchangeName, listing_id: str | None
    ) -> Listing:
        """Create the listing of a catalog in an exchange.

        Args:
            catalog: The catalog key.
            grant: The events that give the right to subscribe.
            exchange: The exchange, which is created if it does not exist.
            listing_id: By default the key with `_` for all but letters, digits, `_` and `-`.

        Raises:
            ValueError: The catalog is shared already, another catalog has this listing, or the
                listing id is not valid.
        """
        listing_id = listing_id or re.sub(r"[^A-Za-z0-9_-]", "_", catalog)
        if not re.fullmatch(r"[\w-]+", listing_id):
            raise ValueError(f"{listing_id!r} is no listing id: use only letters, digits, _ and -")
        name = ListingName(exchange.project, exchange.location, exchange.exchange, listing_id)
        with self.lock:
            before = self._listings.get(catalog)
            if before is not None and not before.is_removed:
                raise ValueError(
                    f"catalog {catalog!r} is shared already, as {before.name}: remove that first"
                )
            if self._catalogs.get(name, catalog) != catalog:
                raise ValueError(
                    f"catalog {catalog!r} cannot be shared as {name}: that is the listing of "
                    f"{self._catalogs[name]!r}; give another listing_id"
                )
            if before is not None:
                del self._listings[catalog], self._exchanges[before.name.in_exchange][catalog]
            listing = Listing(next(self._serials), catalog, name, grant, self.clock())
            self.open_exchange(exchange)
            self._exchanges[exchange][catalog] = None
            self._listings[catalog] = listing
            self._catalogs[name] = catalog
            return listing

    def listing_of(self, catalog: str) -> Listing:
        """Return the listing of a catalog, even if it was removed.

        Raises:
            LookupError: The catalog was never shared.
        """
        with self.lock:
            if catalog not in self._listings:
                shared = ", ".join(list(self._listings)[:10]) or "none"
                raise LookupError(
                    f"catalog {catalog!r} is not shared; shared: {shared}: share it first"
                )
            return self._listings[catalog]

    def all_listings(self) -> list[Listing]:
        """Return the listings of all catalogs in order of creation, including removed ones."""
        with self.lock:
            return list(self._listings.values())

    def grant_access(self, catalog: str) -> None:
        """Give the right to subscribe. Raises LookupError if the catalog was never shared."""
        with self.lock:
            self._listings[catalog] = replace(self.listing_of(catalog), access="granted")

    def revoke_access(self, catalog: str) -> None:
        """Take the right to subscribe away and make the catalog's subscriptions inactive.

        Raises:
            LookupError: The catalog was never shared.
        """
        with self.lock:
            self._listings[catalog] = replace(self.listing_of(catalog), access="revoked")
            self._set_states(catalog, "STATE_INACTIVE")

    def remove_listing(self, catalog: str) -> None:
        """Delete the listing and make its subscriptions inactive.

        Raises:
            LookupError: The catalog was never shared.
        """
        with self.lock:
            self._listings[catalog] = replace(self.listing_of(catalog), is_removed=True)
            self._set_states(catalog, "STATE_INACTIVE")

    def make_stale(self, catalog: str) -> None:
        """Make the active subscriptions of a catalog stale.

        Raises:
            LookupError: The catalog was never shared, or has no active subscription.
        """
        with self.lock:
            self.listing_of(catalog)
            if not self._set_states(catalog, "STATE_STALE", only="STATE_ACTIVE"):
                raise LookupError(
                    f"catalog {catalog!r} has no active subscription to make stale: subscribe first"
                )

    def count_reads(self, listings: list[Listing]) -> None:
        """Count that an MCP call showed the cells of these listings."""
        with self.lock:
            for listing in listings:
                if listing.grant.reads is not None:
                    self._listings[listing.catalog] = replace(listing, reads=listing.reads + 1)

    def add_dataset(self, project: str, dataset: str) -> None:
        """Add an ordinary dataset to a project.

        Raises:
            ValueError: The project has such a dataset already, or the id is not valid.
        """
        if not is_dataset_id(dataset):
            raise ValueError(f"{dataset!r} is no dataset id: use only letters, digits and _")
        with self.lock:
            if (project, dataset) in self._datasets:
                raise ValueError(f"{project} has a dataset {dataset!r} already: use another id")
            self._datasets[project, dataset] = None

    def datasets(self, project: str) -> dict[str, str | None]:
        """Return dataset id to the name of its subscription; None for an ordinary dataset."""
        with self.lock:
            return {
                dataset: subscription
                for (owner, dataset), subscription in self._datasets.items()
                if owner == project
            }

    def exchange_name(self, name: str) -> ExchangeName:
        """Parse a name with the project's id or number. Raises Refusal if it is not valid."""
        parsed = ExchangeName.parse(name)
        return replace(parsed, project=self._projects.get(parsed.project, parsed.project))

    def listing_name(self, name: str) -> ListingName:
        """Parse a name with the project's id or number. Raises Refusal if it is not valid."""
        parsed = ListingName.parse(name)
        return replace(parsed, project=self._projects.get(parsed.project, parsed.project))

    def exchanges(self, project: str, location: str) -> list[ExchangeName]:
        """Return the exchanges of a project in a location, sorted by name.

        Args:
            project: The id or the number of the project.
            location: The location.
        """
        project = self._projects.get(project, project)
        with self.lock:
            return sorted(
                (
                    name
                    for name in self._exchanges
                    if (name.project, name.location) == (project, location)
                ),
                key=str,
            )

    def get_exchange(self, name: str) -> ExchangeName:
        """Return an exchange. Raises Refusal if it does not exist."""
        exchange = self.exchange_name(name)
        with self.lock:
            if exchange not in self._exchanges:
                raise Refusal("NOT_FOUND", f"Data exchange not found: {name}.")
        return exchange

    def listings(self, exchange: ExchangeName) -> list[Listing]:
        """Return the listings in an exchange in order of creation, without removed ones."""
        with self.lock:
            listings = [self._listings[catalog] for catalog in self._exchanges[exchange]]
        return [listing for listing in listings if not listing.is_removed]

    def get_listing(self, name: str) -> Listing:
        """Return a listing. Raises Refusal if it does not exist."""
        wanted = self.listing_name(name)
        with self.lock:
            listing = self._listings.get(self._catalogs.get(wanted, ""))
            if listing is None or listing.is_removed or listing.name != wanted:
                raise Refusal("NOT_FOUND", f"Listing not found: {name}.")
        return listing

    def subscribe(
        self, name: str, destination: Destination, *, destination_first: bool = False
    ) -> Subscription:
        """Subscribe to a listing.

        Args:
            name: The name of the listing.
            destination: The linked dataset to create.
            destination_first: True to report a dataset that is taken before a missing right.

        Raises:
            Refusal: The destination is not valid or is taken, the listing does not exist, or the
                right to subscribe is missing.
        """
        ListingName.parse(name)
        if not is_dataset_id(destination.dataset):
            raise Refusal("INVALID_ARGUMENT", f"Invalid dataset ID {destination.dataset!r}.")
        if not is_project_id(destination.project):
            raise Refusal("INVALID_ARGUMENT", f"Invalid project ID {destination.project!r}.")
        with self.lock:
            listing = self.get_listing(name)
            place = (destination.project, destination.dataset)
            if destination_first:
                self._check_free(place)
            if not listing.has_access(self.clock()):
                self._listings[listing.catalog] = replace(listing, denials=listing.denials + 1)
                raise Refusal(
                    "PERMISSION_DENIED",
                    f"Permission 'analyticshub.listings.subscribe' denied on resource '{name}'.",
                )
            location = listing.name.location
            if destination.location.lower() != location.lower():
                raise Refusal(
                    "INVALID_ARGUMENT",
                    f"The destination is in {destination.location!r}, the data in {location!r}.",
                )
            self._check_free(place)
            subscription = self._new_subscription(listing, destination)
            self._subscriptions[subscription.name] = subscription
            self._datasets[place] = subscription.name
            return subscription

    def may_subscribe(self, name: str) -> bool:
        """Return True if a listing exists and the right to subscribe to it is there.

        A right that the last denied call of `SubscribeListing` brings is there from the next one.
        """
        with self.lock:
            try:
                listing = self.get_listing(name)
            except Refusal:
                return False
            return replace(listing, denials=listing.denials - 1).has_access(self.clock())

    def subscriptions(self) -> list[Subscription]:
        """Return all subscriptions of all projects in order of creation."""
        with self.lock:
            return list(self._subscriptions.values())

    def get_subscription(self, name: str) -> Subscription:
        """Return a subscription. Raises Refusal if it does not exist."""
        with self.lock:
            if name not in self._subscriptions:
                raise Refusal("NOT_FOUND", f"Subscription not found: {name}.")
            return self._subscriptions[name]

    def revoke_subscription(self, name: str) -> Subscription:
        """Make a subscription inactive. Raises Refusal if it does not exist."""
        with self.lock:
            return self._set_state(self.get_subscription(name), "STATE_INACTIVE")

    def refresh_subscription(self, name: str) -> Subscription:
        """Make a stale subscription active.

        Raises:
            Refusal: The subscription does not exist or is inactive.
        """
        with self.lock:
            subscription = self.get_subscription(name)
            if subscription.state == "STATE_INACTIVE":
                raise Refusal("FAILED_PRECONDITION", f"Subscription {name} is not active.")
            return self._set_state(subscription, "STATE_ACTIVE")

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription and its linked dataset. Raises Refusal if it does not exist."""
        with self.lock:
            subscription = self.get_subscription(name)
            del self._subscriptions[name]
            del self._datasets[subscription.project, subscription.dataset]

    def next_serial(self) -> int:
        """Return a number that was not used before."""
        return next(self._serials)

    def _check_free(self, place: tuple[str, str]) -> None:
        if place in self._datasets:
            raise Refusal("ALREADY_EXISTS", "Already Exists: Dataset " + ":".join(place))

    def _new_subscription(self, listing: Listing, destination: Destination) -> Subscription:
        serial, now = next(self._serials), time.time()
        location = listing.name.location
        parent = f"projects/{destination.project}/locations/{location}"
        return Subscription(
            name=f"{parent}/subscriptions/{destination.dataset}_{serial:06d}",
            catalog=listing.catalog,
            listing=listing.name,
            project=destination.project,
            dataset=destination.dataset,
            location=location,
            friendly_name=destination.friendly_name,
            state="STATE_ACTIVE",
            serial=serial,
            created_at=now,
            modified_at=now,
        )

    def _set_states(
        self, catalog: str, state: SubscriptionState, only: SubscriptionState | None = None
    ) -> int:
        """Set the state of a catalog's subscriptions and return their number.

        Args:
            catalog: The catalog key.
            state: The new state.
            only: Change only subscriptions in this state; None for all.
        """
        subscriptions = [
            subscription
            for subscription in self._subscriptions.values()
            if subscription.catalog == catalog and only in (None, subscription.state)
        ]
        for subscription in subscriptions:
            self._set_state(subscription, state)
        return len(subscriptions)

    def _set_state(self, subscription: Subscription, state: SubscriptionState) -> Subscription:
        changed = replace(subscription, state=state, modified_at=time.time())
        self._subscriptions[subscription.name] = changed
        return changed
