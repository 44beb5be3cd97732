"""HTTP requests, HTTP responses and the parsing of headers. No I/O."""

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
"""The maximum size of a response body, after decompression."""

_HEADER_ENCODING = "latin-1"
_FRAMING_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]+)?")
_MAX_RETRY_AFTER = 366 * 24 * 3600.0  # bounds arbitrarily large numbers


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. The client adds the API key and the common headers."""

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
        """Convert to an `httpx.Response` or `httpx2.Response`, for use in public errors."""
        library: Any = importlib.import_module(self.library)
        response: httpx.Response = library.Response(
            self.status_code,
            headers=[
                (name.encode(_HEADER_ENCODING), value.encode(_HEADER_ENCODING))
                for name, value in self.headers.items()
                if name not in _FRAMING_HEADERS
            ],
            content=self.content,
            request=self.request and library.Request(self.request.method, self.request.url),
        )
        return response


class TransportError(Exception):
    """The response was missing or incomplete."""


class TransportTimeoutError(TransportError):
    """The response did not complete in time."""


class BodyTooLargeError(TransportError):
    """The body is larger than `MAX_BODY_BYTES`. `response` contains only status and headers."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"a body larger than {MAX_BODY_BYTES >> 20} MB")
        self.response = response


def parsed_headers(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return a dictionary of headers with lower-case names. Values are decoded as Latin-1."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name = raw_name.decode(_HEADER_ENCODING).lower()
        value = raw_value.decode(_HEADER_ENCODING)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def is_cut_off(headers: Mapping[str, str], body: bytes) -> bool:
    """True if a JSON body is truncated in a way that the HTTP client could not detect.

    If the response has no length, a closed connection looks like the end of the body. HTTP clients
    also miss the truncation of a compressed body, because they do not check for the stream's end.
    """
    has_length = "content-length" in headers or "transfer-encoding" in headers
    if not body or (has_length and "content-encoding" not in headers):
        return False
    if not headers.get("content-type", "").partition(";")[0].strip().endswith("json"):
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        # msgspec reports truncation only in the message.
        return "truncated" in str(error)
    except (UnicodeDecodeError, RecursionError):
        pass
    return False


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the delay from `Retry-After` in seconds. None if the header is missing.

    The header contains whole seconds or an HTTP date. A date is compared with the response's `Date`
    header if there is one, so this machine's clock does not matter. The maximum is one year.
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
    """Return the rate limit in requests per minute, or None if the header is missing."""
    limit = _parsed_number(headers.get("x-ratelimit-limit", ""))
    return limit if limit is not None and limit >= 1 else None


def rate_limit_remaining(headers: Mapping[str, str]) -> float | None:
    """Return the requests that remain in the rate limit, or None if the header is missing."""
    return _parsed_number(headers.get("x-ratelimit-remaining", ""))


def _parsed_number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _parsed_date(text: str) -> datetime | None:
    """Parse an HTTP date. A date without a time zone is taken as UTC."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
