"""Requests and responses as flows and clients exchange them, and what headers say. No I/O."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx

MAX_BODY_BYTES = 256 << 20
"""The largest body of a response, after decompression."""

_ENCODING_OF_HEADERS = "latin-1"
_FRAMING_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]+)?")
_MAX_RETRY_AFTER = 366 * 24 * 3600.0  # more means the same, and need not fit anywhere


@dataclass(frozen=True, slots=True)
class Request:
    """A request without the API key and without the headers that all requests have."""

    method: str
    url: str
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose body has been read and decompressed."""

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    request: Request | None = None
    library: str = "httpx"

    @property
    def is_success(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status_code < 300

    def as_httpx(self) -> httpx.Response:
        """Convert the response to that of its library, for errors that users see."""
        library: Any = importlib.import_module(self.library)
        response: httpx.Response = library.Response(
            self.status_code,
            headers=[
                (name.encode(_ENCODING_OF_HEADERS), value.encode(_ENCODING_OF_HEADERS))
                for name, value in self.headers.items()
                if name not in _FRAMING_HEADERS
            ],
            content=self.content,
            request=self.request and library.Request(self.request.method, self.request.url),
        )
        return response


class TransportError(Exception):
    """There was no complete response."""


class TransportTimeoutError(TransportError):
    """The response was not complete in time."""


class BodyTooLargeError(TransportError):
    """The body of a response is larger than `MAX_BODY_BYTES`; `response` has none."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"a body of more than {MAX_BODY_BYTES >> 20} MB")
        self.response = response


def parsed_headers(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names in lower case; any byte of a value is read as Latin-1."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name = raw_name.decode(_ENCODING_OF_HEADERS).lower()
        value = raw_value.decode(_ENCODING_OF_HEADERS)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def is_cut_off(headers: Mapping[str, str], body: bytes) -> bool:
    """True if a body stops in the middle of its JSON and no header says how long it is.

    A body without a length ends with its connection, and so does a compressed one whose end a
    client does not check.
    """
    has_length = "content-length" in headers or "transfer-encoding" in headers
    if not body or (has_length and "content-encoding" not in headers):
        return False
    if not headers.get("content-type", "").partition(";")[0].strip().endswith("json"):
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        # msgspec has one class of errors for all of JSON; only its text says that a body stopped.
        return "truncated" in str(error)
    except (UnicodeDecodeError, RecursionError):
        pass
    return False


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait according to `Retry-After`, at most a year; None without one.

    The header holds whole seconds or an HTTP date. A date is compared with the response's own
    `Date`, so the clock of this machine does not matter where the server sends its own.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER)
    at = _parsed_date(value)
    if at is None:
        return None
    now = _parsed_date(headers.get("date", "")) or datetime.now(UTC)
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
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
