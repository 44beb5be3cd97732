"""What exists in Analytics Hub: exchanges, listings and who may subscribe, subscriptions, datasets.

One state behind one lock, without any wire format. `hub_cells` holds what Octogen knows of its
subscribers, on top of this.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from threading import RLock
from typing import Final, Literal

from octogen_dagster.sandbox.hub.names import (
    ExchangeName,
    ListingName,
    Refusal,
    is_dataset_id,
    is_project_id,
    project_number,
)

SubscriptionState = Literal["STATE_ACTIVE", "STATE_STALE", "STATE_INACTIVE"]


@dataclass(frozen=True)
class GrantAfter:
    """When the right to subscribe to a listing arrives by itself: at whichever comes first.

    Attributes:
        denials: After that many calls of `SubscribeListing` were refused.
        reads: After that many MCP calls showed the catalog's cell as pending.
        seconds: That long after it was shared.
    """

    denials: int | None = None
    reads: int | None = None
    seconds: float | None = None


AT_ONCE: Final = GrantAfter(seconds=0)
ON_COMMAND: Final = GrantAfter()
"""Not before `grant_access`."""


@dataclass(frozen=True)
class Listing:
    """A catalog that is shared.

    Attributes:
        serial: Its place in the order of creation.
        access: Whether the right to subscribe follows `grant`, or was given or taken by hand.
        denials: How many calls of `SubscribeListing` were refused.
        reads: How many MCP calls showed its cell.
        is_removed: The publisher deleted it; only its name is left.
    """

    serial: int
    catalog: str
    name: ListingName
    grant: GrantAfter
    shared_at: float
    access: Literal["waiting", "granted", "revoked"] = "waiting"
    denials: int = 0
    reads: int = 0
    is_removed: bool = False

    def has_access(self, now: float) -> bool:
        """Whether it may be subscribed to at `now`, on the clock of `shared_at`."""
        if self.access != "waiting":
            return self.access == "granted"
        after = self.grant
        return (
            (after.denials is not None and self.denials >= after.denials)
            or (after.reads is not None and self.reads >= after.reads)
            or (after.seconds is not None and now - self.shared_at >= after.seconds)
        )


@dataclass(frozen=True)
class Subscription:
    """A subscription as it is now.

    Attributes:
        name: `projects/<project>/locations/<location>/subscriptions/<id>`.
        catalog: The key of the catalog that is subscribed to.
        listing: The listing it is of.
        project: The subscriber's project, where the linked dataset is.
        dataset: The id of the linked dataset.
        serial: Its place in the order of creation.
        created_at: In seconds since the epoch, like `modified_at`.
    """

    name: str
    catalog: str
    listing: ListingName
    project: str
    dataset: str
    location: str
    friendly_name: str
    state: SubscriptionState
    serial: int
    created_at: float
    modified_at: float


@dataclass(frozen=True)
class Destination:
    """Where a linked dataset is asked for."""

    project: str
    dataset: str
    location: str
    friendly_name: str = ""


@dataclass
class HubState:
    """Everything in Analytics Hub.

    Attributes:
        lock: Held while the state is read or changed; may be taken again by its holder.
        clock: Seconds that only go forward.
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
        """Let a data exchange exist, if it does not."""
        with self.lock:
            self._projects[project_number(exchange.project)] = exchange.project
            self._exchanges.setdefault(exchange, {})

    def share(
        self, catalog: str, grant: GrantAfter, exchange: ExchangeName, listing_id: str | None
    ) -> Listing:
        """Let the listing of a catalog appear in an exchange.

        Raises:
            ValueError: The catalog is shared already, another one has this listing, or the
                listing cannot have such an id.
        """
        listing_id = listing_id or re.sub(r"[^A-Za-z0-9_-]", "_", catalog)
        if not re.fullmatch(r"[\w-]+", listing_id):
            raise ValueError(f"{listing_id!r} is no listing id: letters, digits, _ and - only")
        name = ListingName(exchange.project, exchange.location, exchange.exchange, listing_id)
        with self.lock:
            before = self._listings.get(catalog)
            if before is not None and not before.is_removed:
                raise ValueError(f"catalog {catalog!r} is shared already, as {before.name}")
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
        """The listing of a catalog, removed or not.

        Raises:
            LookupError: The catalog was never shared.
        """
        with self.lock:
            if catalog not in self._listings:
                shared = ", ".join(list(self._listings)[:10]) or "none"
                raise LookupError(f"catalog {catalog!r} is not shared; shared: {shared}")
            return self._listings[catalog]

    def all_listings(self) -> list[Listing]:
        """The listings of all catalogs in order of creation, with those that were removed."""
        with self.lock:
            return list(self._listings.values())

    def grant_access(self, catalog: str) -> None:
        """Give the right to subscribe. Raises LookupError for a catalog never shared."""
        with self.lock:
            self._listings[catalog] = replace(self.listing_of(catalog), access="granted")

    def revoke_access(self, catalog: str) -> None:
        """Take the right and the data away. Raises LookupError for a catalog never shared."""
        with self.lock:
            self._listings[catalog] = replace(self.listing_of(catalog), access="revoked")
            self._turn(catalog, "STATE_INACTIVE")

    def remove_listing(self, catalog: str) -> None:
        """Delete the listing. Raises LookupError for a catalog never shared."""
        with self.lock:
            self._listings[catalog] = replace(self.listing_of(catalog), is_removed=True)
            self._turn(catalog, "STATE_INACTIVE")

    def make_stale(self, catalog: str) -> None:
        """Let the active subscriptions of a catalog become stale.

        Raises:
            LookupError: There are none.
        """
        with self.lock:
            self.listing_of(catalog)
            if not self._turn(catalog, "STATE_STALE", only="STATE_ACTIVE"):
                raise LookupError(f"catalog {catalog!r} has no active subscription to make stale")

    def note_reads(self, listings: list[Listing]) -> None:
        """Count that the cells of these listings were shown."""
        with self.lock:
            for listing in listings:
                if listing.grant.reads is not None:
                    self._listings[listing.catalog] = replace(listing, reads=listing.reads + 1)

    def add_dataset(self, project: str, dataset: str) -> None:
        """Let a project have an ordinary dataset.

        Raises:
            ValueError: It has one of that id, or it is no dataset id.
        """
        if not is_dataset_id(dataset):
            raise ValueError(f"{dataset!r} is no dataset id: letters, digits and _ only")
        with self.lock:
            if (project, dataset) in self._datasets:
                raise ValueError(f"{project} has a dataset {dataset!r} already")
            self._datasets[project, dataset] = None

    def datasets(self, project: str) -> dict[str, str | None]:
        """Dataset id to the name of its subscription; None for an ordinary dataset."""
        with self.lock:
            return {
                dataset: subscription
                for (owner, dataset), subscription in self._datasets.items()
                if owner == project
            }

    def exchange_name(self, name: str) -> ExchangeName:
        """Read a name that has a project's id or number. Raises Refusal when it is none."""
        parsed = ExchangeName.parse(name)
        return replace(parsed, project=self._projects.get(parsed.project, parsed.project))

    def listing_name(self, name: str) -> ListingName:
        """Read a name that has a project's id or number. Raises Refusal when it is none."""
        parsed = ListingName.parse(name)
        return replace(parsed, project=self._projects.get(parsed.project, parsed.project))

    def exchanges(self, project: str, location: str) -> list[ExchangeName]:
        """The exchanges of a project, by id or number, in a location; by name."""
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
        """Raises Refusal when there is no such exchange."""
        exchange = self.exchange_name(name)
        with self.lock:
            if exchange not in self._exchanges:
                raise Refusal("NOT_FOUND", f"Data exchange not found: {name}.")
        return exchange

    def listings(self, exchange: ExchangeName) -> list[Listing]:
        """The listings in an exchange in order of creation."""
        with self.lock:
            listings = [self._listings[catalog] for catalog in self._exchanges[exchange]]
        return [listing for listing in listings if not listing.is_removed]

    def get_listing(self, name: str) -> Listing:
        """Raises Refusal when there is no such listing."""
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
            name: The listing's.
            destination: Where the linked dataset goes.
            destination_first: Whether a dataset that is taken is said before a missing right.

        Raises:
            Refusal: The destination makes no sense or is taken, the listing does not exist, or
                the right to subscribe to it is not there (yet).
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
        """Whether the right to subscribe to a listing is there; no, where no listing is."""
        with self.lock:
            try:
                return self.get_listing(name).has_access(self.clock())
            except Refusal:
                return False

    def _check_free(self, place: tuple[str, str]) -> None:
        if place in self._datasets:
            raise Refusal("ALREADY_EXISTS", "Already Exists: Dataset " + ":".join(place))

    def subscriptions(self) -> list[Subscription]:
        """All subscriptions of all projects in order of creation."""
        with self.lock:
            return list(self._subscriptions.values())

    def get_subscription(self, name: str) -> Subscription:
        """Raises Refusal when there is no such subscription."""
        with self.lock:
            if name not in self._subscriptions:
                raise Refusal("NOT_FOUND", f"Subscription not found: {name}.")
            return self._subscriptions[name]

    def revoke_subscription(self, name: str) -> Subscription:
        """Let a subscription become inactive. Raises Refusal when there is none."""
        with self.lock:
            return self._set_state(self.get_subscription(name), "STATE_INACTIVE")

    def refresh_subscription(self, name: str) -> Subscription:
        """Let a stale subscription become active.

        Raises:
            Refusal: There is none, or it is inactive.
        """
        with self.lock:
            subscription = self.get_subscription(name)
            if subscription.state == "STATE_INACTIVE":
                raise Refusal("FAILED_PRECONDITION", f"Subscription {name} is not active.")
            return self._set_state(subscription, "STATE_ACTIVE")

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription and its linked dataset. Raises Refusal when there is none."""
        with self.lock:
            subscription = self.get_subscription(name)
            del self._subscriptions[name]
            del self._datasets[subscription.project, subscription.dataset]

    def next_serial(self) -> int:
        """A number that was not given out before."""
        return next(self._serials)

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

    def _turn(
        self, catalog: str, state: SubscriptionState, only: SubscriptionState | None = None
    ) -> int:
        """Put the subscriptions of a catalog into a state; returns how many those were."""
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
