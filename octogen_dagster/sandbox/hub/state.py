"""Immutable values for what exists in Analytics Hub: listings, grants and subscriptions."""

from dataclasses import dataclass
from typing import Final, Literal

from octogen_dagster.sandbox.hub.names import ListingName

SubscriptionState = Literal["STATE_ACTIVE", "STATE_STALE", "STATE_INACTIVE"]


@dataclass(frozen=True)
class GrantAfter:
    """The events that give the right to subscribe to a listing. The first one counts.

    Attributes:
        denials: The number of denied calls of `SubscribeListing`.
        reads: The number of MCP calls that showed the catalog's cell as preparing.
        seconds: The time since the catalog was shared, in seconds.
    """

    denials: int | None = None
    reads: int | None = None
    seconds: float | None = None


AT_ONCE: Final = GrantAfter(seconds=0)
ON_COMMAND: Final = GrantAfter()
"""The right arrives only when `grant_access` is called."""


@dataclass(frozen=True)
class Listing:
    """A catalog that is shared.

    Attributes:
        serial: The position in the order of creation.
        catalog: The catalog key.
        name: The resource name.
        grant: The events that give the right to subscribe.
        shared_at: The time at which it was shared, in seconds on the store's clock.
        access: `waiting` while the right to subscribe depends on `grant`; otherwise what was
            decided by hand.
        denials: The number of denied calls of `SubscribeListing`.
        reads: The number of MCP calls that showed its cell.
        is_removed: True if the publisher deleted it. Only its name is left.
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
        """Return True if it may be subscribed to at `now`, in seconds on the store's clock."""
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
    """A subscription at one moment.

    Attributes:
        name: `projects/<project>/locations/<location>/subscriptions/<id>`.
        catalog: The key of the catalog that is subscribed to.
        listing: The name of the listing.
        project: The subscriber's project, where the linked dataset is.
        dataset: The id of the linked dataset.
        location: The location of the listing and the linked dataset.
        friendly_name: The display name of the linked dataset.
        state: The state.
        serial: The position in the order of creation.
        created_at: The time of creation, in seconds since the epoch.
        modified_at: The time of the last change, in seconds since the epoch.
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
    """The linked dataset that a subscriber asks for."""

    project: str
    dataset: str
    location: str
    friendly_name: str = ""
