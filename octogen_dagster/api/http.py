"""Request, Response and Transport: what the Requester and the two HTTP clients exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from octogen_dagster.api.content_encoding import InvalidEncodingError, decompressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import httpx

MAX_BODY_BYTES = 256 << 20
"""The largest body of a response, after decompression."""

_ENCODING_OF_HEADERS = "latin-1"
_FRAMING_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class TransportError(Exception):
    """There was no complete response."""


class TransportTimeoutError(TransportError):
    """The response was not complete in time."""


class BodyTooLargeError(Exception):
    """The body of a response is larger than `MAX_BODY_BYTES`.

    Args:
        response: The response, without its body.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"a body of more than {MAX_BODY_BYTES >> 20} MB")
        self.response = response


@dataclass(frozen=True, slots=True)
class Request:
    """A request without the API key and without the headers that all requests have.

    Attributes:
        method: The HTTP method.
        url: The whole URL.
        content: The body, JSON; None for none.
    """

    method: str
    url: str
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose body has been read.

    Attributes:
        status_code: The HTTP status.
        headers: The headers by their names in lower case. The values of a header that comes more
            than once are joined by a comma and a blank.
        content: The body, decompressed.
        request: What it responds to; None for a page that was saved.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    request: Request | None = None

    @property
    def is_success(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status_code < 300

    def as_httpx(self) -> httpx.Response:
        """Convert the response to httpx's own type, for errors that users see."""
        import httpx

        return httpx.Response(
            self.status_code,
            headers=[
                (name.encode(_ENCODING_OF_HEADERS), value.encode(_ENCODING_OF_HEADERS))
                for name, value in self.headers.items()
                if name not in _FRAMING_HEADERS
            ],
            content=self.content,
            request=httpx.Request(self.request.method, self.request.url) if self.request else None,
        )


class Transport(Protocol):
    """An HTTP client that adds the API key to requests and never follows a redirect."""

    async def send(
        self, request: Request, seconds: float, begun: Callable[[Response], None]
    ) -> Response:
        """Send a request and read the whole response.

        Args:
            request: The request.
            seconds: The time for all of it: connecting, sending, and the response to its last
                byte, with all interim (1xx) responses and trailers.
            begun: Called with the response without its body, once its status and headers are
                there, even if the body does not follow.

        Raises:
            TransportError: There was no complete response.
            TransportTimeoutError: The time is over.
            BodyTooLargeError: The body is too large.
        """

    async def aclose(self) -> None:
        """Close the connections."""


def parsed_headers(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names in lower case; any byte of a value is read as Latin-1."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name = raw_name.decode(_ENCODING_OF_HEADERS).lower()
        value = raw_value.decode(_ENCODING_OF_HEADERS)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def complete_response(head: Response, body: bytes) -> Response:
    """Decompress the body of a response that ended, and check that it was not cut off.

    A compressed body says where it ends. A body without a length ends with its connection, so JSON
    that stops in the middle was cut off.

    Args:
        head: The response without its body.
        body: The body as it was sent.

    Raises:
        TransportError: The body was cut off or cannot be decompressed.
        BodyTooLargeError: The decompressed body is too large.
    """
    headers = head.headers
    encoding = headers.get("content-encoding")
    if encoding and body:
        try:
            body = decompressed(body, encoding, MAX_BODY_BYTES + 1)
        except InvalidEncodingError as error:
            raise TransportError(str(error)) from None
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLargeError(head)
    has_length = "content-length" in headers or "transfer-encoding" in headers
    if not has_length and body and _is_json(headers) and _is_truncated(body):
        raise TransportError("the connection was closed in the middle of the body")
    return Response(head.status_code, headers, body, head.request)


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().endswith("json")


def _is_truncated(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    except (UnicodeDecodeError, RecursionError):
        pass
    return False
