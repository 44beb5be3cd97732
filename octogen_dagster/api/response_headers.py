"""What the headers of a response say about waiting: `Retry-After` and `X-RateLimit-*`.

A header that cannot be read counts as absent.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]+)?")
_MAX_RETRY_AFTER = 366 * 24 * 3600.0  # more means the same, and need not fit anywhere


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait according to the `Retry-After` header, at most a year; None without one.

    The header holds whole seconds or an HTTP date. A date is compared with the response's own
    `Date`, so the clock of this machine does not matter where the server sends its own.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER)
    at = _parsed_date(value)
    if at is None:
        return None
    now = _parsed_date(headers.get("date", "")) or datetime.now(timezone.utc)
    return min(max(0.0, (at - now).total_seconds()), _MAX_RETRY_AFTER)


def rate_limit(headers: Mapping[str, str]) -> float | None:
    """Requests a minute that the organisation may send; None if the service does not say."""
    limit = _parsed_number(headers.get("x-ratelimit-limit", ""))
    return limit if limit is not None and limit >= 1 else None


def rate_limit_remaining(headers: Mapping[str, str]) -> float | None:
    """Requests that may be sent at once; None if the service does not say."""
    return _parsed_number(headers.get("x-ratelimit-remaining", ""))


def _parsed_number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _parsed_date(text: str) -> datetime | None:
    """Parse an HTTP date as UTC, which it is also without a zone."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(timezone.utc) if date.tzinfo else date.replace(tzinfo=timezone.utc)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
