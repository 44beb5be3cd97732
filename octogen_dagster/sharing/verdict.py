"""Decides whether to subscribe to a listing that Octogen shows a subscriber. No I/O."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octogen_dagster.sharing.status import Standing, denies_access, standing

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum

if TYPE_CHECKING:
    from octogen_dagster.sharing.octogen_protocols import Subscriber
    from octogen_dagster.sharing.subscriber_view import SubscriberListing

NOT_GRANTED = (
    "Octogen has not granted a catalog of this key to your organisation: check the key, or ask "
    "Octogen for it."
)


class Action(StrEnum):
    """The action for a listing: planned by a verdict, or taken by a pass."""

    ALREADY_ACTIVE = "already_active"
    ALREADY_SUBSCRIBED = "already_subscribed"
    SUBSCRIBED = "subscribed"
    WOULD_SUBSCRIBE = "would_subscribe"
    PENDING = "pending"
    SKIPPED = "skipped"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about a listing.

    Attributes:
        action: The action; `WOULD_SUBSCRIBE` if the listing waits for a subscription.
        message: The reason; None if there is nothing to explain.
    """

    action: Action
    message: str | None = None


def verdict(listing: SubscriberListing, subscriber: Subscriber | None) -> Verdict:
    """Decide about a listing.

    Args:
        listing: The listing with its status.
        subscriber: The subscriber; None if it is not registered.
    """
    if listing.catalog_key is None:
        return Verdict(
            Action.SKIPPED, "Octogen sent it without a catalog key: report it to Octogen."
        )
    if not listing.has_cell and listing.listing_resource is None:
        return Verdict(Action.ERROR, NOT_GRANTED)
    if subscriber is None:
        return Verdict(
            Action.PENDING,
            "The subscriber is not registered: a pass with --apply registers it, and a later one "
            "subscribes, once Octogen has granted access.",
        )
    if not is_enabled(subscriber):
        return Verdict(
            Action.PENDING,
            f"The subscriber is {subscriber.desired_state} at Octogen: enable it there.",
        )
    if not listing.has_cell:
        return Verdict(Action.PENDING, "Octogen has no status for this subscriber yet.")
    return _status_verdict(listing)


def is_enabled(subscriber: Subscriber) -> bool:
    """True if Octogen serves the subscriber."""
    return subscriber.desired_state in (None, "enabled")


def shown_status(listing: SubscriberListing, subscriber: Subscriber | None) -> str | None:
    """The status to report: the listing's, or the subscriber's state if Octogen does not serve it.

    Args:
        listing: The listing with its status.
        subscriber: The subscriber; None if it is not registered.
    """
    if subscriber and not is_enabled(subscriber):
        return subscriber.desired_state
    return listing.status


def _status_verdict(listing: SubscriberListing) -> Verdict:
    status, reason = listing.status, listing.reason_code
    match standing(status, reason):
        case Standing.ACTIVE:
            return Verdict(Action.ALREADY_ACTIVE)
        case Standing.GRANTED if listing.listing_resource is None:
            return Verdict(
                Action.ERROR, "Octogen grants access and names no listing: report it to Octogen."
            )
        case Standing.GRANTED:
            return Verdict(
                Action.WOULD_SUBSCRIBE, "A pass with --apply creates the linked dataset."
            )
        case Standing.FAILED:
            return Verdict(Action.ERROR, f"Octogen reports {reason or status}: ask Octogen.")
        case Standing.WITHDRAWN:
            return Verdict(Action.SKIPPED, f"Octogen does not share it ({reason or status}).")
    detail = "" if status is None or denies_access(status) else f": its status is {status!r}"
    return Verdict(Action.PENDING, f"Octogen has not granted access yet{detail}.")
