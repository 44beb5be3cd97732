"""BlockingTransport: the HTTP client of bulk reads, on libcurl."""

from __future__ import annotations

import io
import os
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

from octogen_dagster.api.cancellation import CancelScope
from octogen_dagster.api.http import (
    MAX_BODY_BYTES,
    BodyTooLargeError,
    Request,
    Response,
    TransportError,
    TransportTimeoutError,
    complete_response,
    parsed_headers,
)
from octogen_dagster.api.urls import may_use_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pycurl

    from octogen_dagster.api.credentials import ApiKey

_BUFFER_BYTES = 512 << 10  # what libcurl reads at once: fewer callbacks for each page
_MAX_SECONDS = 1e6
_QUICK_EXIT = 322  # CURLOPT_QUICK_EXIT, which pycurl does not name


class BlockingTransport:
    """A Transport that blocks its thread while a request is sent.

    It is meant for an event loop in a thread of its own that sends one request at a time: blocking
    it delays nobody else, and a request costs a fraction of the CPU time that httpx takes (measured
    in `benchmarks/`). Proxies and certificates come from the environment, as with httpx: from
    `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, and from `SSL_CERT_FILE`, `SSL_CERT_DIR` or else
    certifi. Plain http, which stays on this machine, uses no proxy.

    Args:
        url: The base URL of all requests.
        key: The API key.
        headers: The headers of all requests.
        scope: Its end ends the request or the wait that is under way within about a second, with
            a `ClosedError`.
    """

    def __init__(
        self, url: str, key: ApiKey, headers: Mapping[str, str], scope: CancelScope | None = None
    ) -> None:
        self._scope = scope or CancelScope()
        self._curl: pycurl.Curl | None = _handle(url, key, headers, self._scope)

    async def send(
        self, request: Request, seconds: float, begun: Callable[[Response], None]
    ) -> Response:
        """`Transport.send`; it blocks.

        Raises:
            TransportError: There was no complete response.
            TransportTimeoutError: The time is over.
            BodyTooLargeError: The body is too large.
            ClosedError: The scope was cancelled, or its time is over.
        """
        import pycurl

        if self._curl is None:
            raise RuntimeError("The client is closed: make another one.")
        self._scope.check()
        body, lines = io.BytesIO(), list[bytes]()
        failure, message = 0, ""
        try:
            self._prepare(self._curl, request, min(seconds, self._scope.remaining))
            self._curl.setopt(pycurl.WRITEFUNCTION, body.write)
            self._curl.setopt(pycurl.HEADERFUNCTION, lines.append)
            self._curl.perform()
        except pycurl.error as error:
            failure, message = error.args
        head = _head(self._curl.getinfo(pycurl.RESPONSE_CODE), lines, request)
        if head is not None:
            begun(head)
        if failure:
            self._scope.check()
        match failure:
            case 0 if head is not None:
                return complete_response(head, body.getvalue())
            case 0:
                raise TransportError("the connection was closed in the middle of the headers")
            case pycurl.E_OPERATION_TIMEDOUT:
                raise TransportTimeoutError(message)
            case pycurl.E_FILESIZE_EXCEEDED if head is not None:
                raise BodyTooLargeError(head)
        raise TransportError(message)

    async def sleep(self, seconds: float) -> None:
        """Block for some time.

        Raises:
            ClosedError: The scope was cancelled, or its time is over.
        """
        self._scope.wait(seconds)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._curl is not None:
            self._curl.close()
            self._curl = None

    @staticmethod
    def _prepare(curl: pycurl.Curl, request: Request, seconds: float) -> None:
        import pycurl

        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(min(seconds, _MAX_SECONDS) * 1000)))
        if request.method == "GET":
            curl.setopt(pycurl.HTTPGET, 1)
        else:
            curl.setopt(pycurl.POSTFIELDS, request.content or b"")


def _handle(url: str, key: ApiKey, headers: Mapping[str, str], scope: CancelScope) -> pycurl.Curl:
    """Make a handle that keeps one connection open. The key is in no other object."""
    import certifi
    import pycurl

    curl = pycurl.Curl()
    lines = [f"{name}: {value}" for name, value in headers.items()]
    # No local has the key, which a traceback might show.
    curl.setopt(pycurl.HTTPHEADER, [*lines, "Expect:", f"Authorization: {key.authorization}"])
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(_QUICK_EXIT, 1)  # closing does not wait for a name server that hangs
    curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
    curl.setopt(pycurl.MAXFILESIZE_LARGE, MAX_BODY_BYTES)
    curl.setopt(pycurl.NOPROGRESS, 0)
    curl.setopt(pycurl.XFERINFOFUNCTION, lambda *_: scope.is_cancelled)
    curl.setopt(pycurl.PROXY, _proxy(url))
    curl.setopt(pycurl.NOPROXY, "")
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if folder and not file:
        curl.setopt(pycurl.CAPATH, folder)
    else:
        curl.setopt(pycurl.CAINFO, file or certifi.where())
    return curl


def _proxy(url: str) -> str:
    """The address of the environment's proxy for a URL; empty if there is none."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if not may_use_proxy(url) or urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get("https") or proxies.get("all") or ""


def _head(status: int, lines: Sequence[bytes], request: Request) -> Response | None:
    """Return the response without its body; None if its headers are not complete.

    Args:
        status: The status of the last response.
        lines: The lines of the headers: those of a proxy's tunnel and of interim responses come
            before those of the response, and its trailers after them.
        request: The request.
    """
    if status < 200:
        return None
    status_lines = [place for place, line in enumerate(lines) if line[:5].upper() == b"HTTP/"]
    begin = max(status_lines, default=len(lines))
    fields: list[tuple[bytes, bytes]] = []
    for line in lines[begin + 1 :]:
        if not line.strip():
            return Response(status, parsed_headers(fields), request=request)
        name, _, value = line.partition(b":")
        fields.append((name.strip(), value.strip()))
    return None
