"""TimeWindow: the time window of a snapshot."""

from __future__ import annotations

from datetime import datetime, timezone

TimeWindow = tuple[datetime, datetime]
"""The beginning, inclusive, and the end, exclusive."""


def utc_now() -> datetime:
    """Return the present time, in UTC."""
    return datetime.now(timezone.utc)


def is_within(window: TimeWindow, moment: datetime) -> bool:
    """True if a moment is in a window."""
    return window[0] <= moment < window[1]
