"""Octogen's words for the state of a listing, and what they mean to its subscriber. No I/O."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum

GRANTED = "awaiting_subscription"
_PENDING = {"preparing", "pending"}
_ACTIVE = {"active", "source_stale"}
_FAILED = {"refresh_failed", "access_grant_failed", "needs_attention"}
_WITHDRAWN = {"catalog_not_enabled", "scope_revoked", "removing"}


class Standing(StrEnum):
    """What Octogen's status and reason code mean together."""

    PENDING = "pending"
    GRANTED = "granted"
    ACTIVE = "active"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


def standing(status: str | None, reason_code: str | None = None) -> Standing:
    """Return what a status means. One that is missing or not known means that it is pending.

    Args:
        status: Octogen's status of a listing for one subscriber.
        reason_code: Octogen's reason for the status.
    """
    if status == GRANTED:
        return Standing.GRANTED
    if status in _ACTIVE:
        return Standing.ACTIVE
    words = {status, reason_code}
    if words & _FAILED:
        return Standing.FAILED
    return Standing.WITHDRAWN if words & _WITHDRAWN else Standing.PENDING


def decisive_status(status: str | None, reason_code: str | None) -> str | None:
    """Return the status, or the reason code if only that tells that it is not just pending.

    Args:
        status: Octogen's status of a listing for one subscriber.
        reason_code: Octogen's reason for the status.
    """
    if standing(status) is standing(status, reason_code):
        return status
    return reason_code


def denies_access(status: str | None) -> bool:
    """True if a status says that access is not granted, in a word that is known."""
    return status in _PENDING | _WITHDRAWN
