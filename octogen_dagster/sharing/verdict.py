"""Decides whether to subscribe to a listing that Octogen shows a subscriber. No I/O."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum

if TYPE_CHECKING:
    from octogen_dagster.sharing.octogen_protocols import Subscriber
    from octogen_dagster.sharing.subscriber_view import SubscriberListing

_ACTIVE = {"active", "source_stale"}
_FAILED = {"refresh_failed", "access_grant_failed"}
_WITHDRAWN = {"catalog_not_enabled", "scope_revoked", "removing"}


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
        return Verdict(Action.SKIPPED, "Octogen shares no catalog of this key: check the key.")
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
    action, message = Action.SKIPPED, f"The status {status!r} is not known: update octogen-dagster."
    if status == "awaiting_subscription" and listing.listing_resource is None:
        action = Action.ERROR
        message = "Octogen grants access and names no listing: report it to Octogen."
    elif status == "awaiting_subscription":
        action = Action.WOULD_SUBSCRIBE
        message = "A pass with --apply creates the linked dataset."
    elif status in _ACTIVE:
        return Verdict(Action.ALREADY_ACTIVE)
    elif status in _FAILED or reason == "needs_attention":
        action, message = Action.ERROR, f"Octogen reports {reason or status}: ask Octogen."
    elif reason in _WITHDRAWN:
        message = f"Octogen does not share it ({reason})."
    elif status == "pending":
        action, message = Action.PENDING, "Octogen has not granted access yet."
    elif status is None:
        message = "Octogen sent no status: report it to Octogen."
    return Verdict(action, message)
