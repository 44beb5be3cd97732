"""The verdict about a listing, for each status that Octogen may send."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octogen_dagster.sharing.subscriber_view import SubscriberListing
from octogen_dagster.sharing.verdict import Action, is_enabled, shown_status, verdict
from tests.sharing.octogen import ME

LISTING = SubscriberListing("acme", "projects/p/locations/us/dataExchanges/e/listings/acme")
WAITING = replace(LISTING, has_cell=True, status="awaiting_subscription")
DISABLED = replace(ME, desired_state="disabled")


@pytest.mark.parametrize(
    ("status", "reason", "action", "message"),
    [
        ("active", None, Action.ALREADY_ACTIVE, None),
        ("active", "removing", Action.ALREADY_ACTIVE, None),
        ("source_stale", None, Action.ALREADY_ACTIVE, None),
        ("preparing", None, Action.PENDING, "Octogen has not granted access yet."),
        ("preparing", "preparing", Action.PENDING, "Octogen has not granted access yet."),
        ("pending", None, Action.PENDING, "Octogen has not granted access yet."),
        ("pending", "new_reason", Action.PENDING, "Octogen has not granted access yet."),
        ("melted", None, Action.PENDING, "not granted access yet: its status is 'melted'."),
        (None, "preparing", Action.PENDING, "Octogen has not granted access yet."),
        (None, None, Action.PENDING, "Octogen has not granted access yet."),
        ("preparing", "needs_attention", Action.ERROR, "Octogen reports needs_attention: ask"),
        ("preparing", "refresh_failed", Action.ERROR, "Octogen reports refresh_failed: ask"),
        ("melted", "needs_attention", Action.ERROR, "Octogen reports needs_attention: ask"),
        ("refresh_failed", None, Action.ERROR, "Octogen reports refresh_failed: ask Octogen."),
        ("access_grant_failed", "removing", Action.ERROR, "Octogen reports removing: ask Octogen."),
        ("removing", None, Action.SKIPPED, "does not share it (removing)."),
        ("melted", "removing", Action.SKIPPED, "does not share it (removing)."),
        ("pending", "catalog_not_enabled", Action.SKIPPED, "does not share it (catalog_not_enab"),
        ("pending", "scope_revoked", Action.SKIPPED, "does not share it (scope_revoked)."),
        ("pending", "removing", Action.SKIPPED, "does not share it (removing)."),
    ],
)
def test_each_status_has_a_verdict(
    status: str | None, reason: str | None, action: Action, message: str | None
) -> None:
    decided = verdict(replace(WAITING, status=status, reason_code=reason), ME)
    assert decided.action is action
    if message is None:
        assert decided.message is None
    else:
        assert message in str(decided.message)


def test_a_listing_that_waits_is_to_be_subscribed_to() -> None:
    decided = verdict(WAITING, ME)
    assert decided.action is Action.WOULD_SUBSCRIBE
    assert decided.message == "A pass with --apply creates the linked dataset."


@pytest.mark.parametrize(
    ("listing", "action", "message"),
    [
        (
            replace(WAITING, catalog_key=None),
            Action.SKIPPED,
            "Octogen sent it without a catalog key: report it to Octogen.",
        ),
        (
            SubscriberListing("typo"),
            Action.ERROR,
            "Octogen has not granted a catalog of this key to your organisation: check the key, or "
            "ask Octogen for it.",
        ),
        (LISTING, Action.PENDING, "Octogen has no status for this subscriber yet."),
        (
            replace(WAITING, listing_resource=None),
            Action.ERROR,
            "Octogen grants access and names no listing: report it to Octogen.",
        ),
    ],
    ids=["no key", "unknown key", "no cell", "no listing"],
)
def test_a_listing_with_missing_parts_has_a_verdict(
    listing: SubscriberListing, action: Action, message: str
) -> None:
    decided = verdict(listing, ME)
    assert (decided.action, decided.message) == (action, message)


def test_a_subscriber_that_is_not_registered_or_not_served_is_pending() -> None:
    unregistered = verdict(WAITING, None)
    assert unregistered.action is Action.PENDING
    assert "The subscriber is not registered" in str(unregistered.message)
    disabled = verdict(WAITING, DISABLED)
    assert disabled.action is Action.PENDING
    assert disabled.message == "The subscriber is disabled at Octogen: enable it there."


def test_the_state_of_a_subscriber_that_is_not_served_is_shown_as_the_status() -> None:
    assert shown_status(WAITING, ME) == "awaiting_subscription"
    assert shown_status(WAITING, None) == "awaiting_subscription"
    assert shown_status(WAITING, DISABLED) == "disabled"
    assert is_enabled(replace(ME, desired_state=None))
    assert not is_enabled(DISABLED)
