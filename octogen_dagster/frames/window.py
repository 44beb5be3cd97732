"""The time that a snapshot is of."""

from __future__ import annotations

from datetime import datetime, timezone

TimeWindow = tuple[datetime, datetime]
"""The beginning, inclusive, and the end, exclusive."""


def utc_now() -> datetime:
    """The present."""
    return datetime.now(timezone.utc)


def is_within(window: TimeWindow, moment: datetime) -> bool:
    """True if a moment is in a window."""
    return window[0] <= moment < window[1]
