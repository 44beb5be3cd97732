"""The HTTP client of bulk reads, behind the protocol that httpx's own client implements too."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol

import httpx
import urllib3
from urllib3 import exceptions

from octogen_dagster.api.urls import may_use_proxy

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

_CHUNK_BYTES = 1 << 20


class HttpClient(Protocol):
    """The part of `httpx.AsyncClient` that OctogenClient uses."""

    @property
    def timeout(self) -> httpx.Timeout:
        """The timeout of a request for which no other one is set."""

    def build_request(self, method: str, url: str, *, headers: dict[str, str]) -> httpx.Request:
        """Make a request with these headers and those that the client adds to every request."""

    async def send(
        self,
        request: httpx.Request,
        *,
        auth: Callable[[httpx.Request], httpx.Request],
        follow_redirects: Literal[False],
        stream: Literal[True],
    ) -> httpx.Response:
        """Send a request and return the response when its status and headers are there.

        The caller reads the body with `aread`, which may raise the same errors, and closes the
        response with `aclose`.

        Args:
            request: Its extension `timeout` has the seconds for each phase, as httpx names them.
            auth: Adds the API key to the request.
            follow_redirects: False, so that the API key stays with the configured host.
            stream: True, since a response whose body is cut off is charged by its status.

        Raises:
            httpx.RequestError: There was no response, or it was incomplete or unreadable.
        """

    async def aclose(self) -> None:
        """Close the connections."""


class BlockingClient:
    """An HttpClient on urllib3 that blocks its thread.

    It is meant for an event loop in a thread of its own that reads one search at a time: blocking
    it delays nobody else, and a page costs about half of the CPU time that httpx's asynchronous
    client takes (measured in `benchmarks/`). As with httpx, proxies and certificates come from
    the environment.

    Args:
        url: The base URL of all requests.
        timeout: Seconds for each phase of a request.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.timeout = httpx.Timeout(timeout)
        context = httpx.create_ssl_context() if may_use_proxy(url) else None
        proxy = _proxy(url)
        self._manager = (
            _proxy_manager(proxy, context)
            if proxy
            else urllib3.PoolManager(maxsize=1, retries=False, ssl_context=context)
        )
        # Without a proxy, the host's own pool need not be looked up for each request.
        self._pool = None if proxy else self._manager.connection_from_url(url)

    def build_request(self, method: str, url: str, *, headers: dict[str, str]) -> httpx.Request:
        """Make a request with these headers and those of every request."""
        return httpx.Request(method, url, headers={"Accept-Encoding": "gzip, deflate", **headers})

    async def send(
        self,
        request: httpx.Request,
        *,
        auth: Callable[[httpx.Request], httpx.Request],
        follow_redirects: Literal[False] = False,
        stream: Literal[True] = True,
    ) -> httpx.Response:
        """Send the request and block until the status and the headers of the response are there.

        Raises:
            httpx.RequestError: There was no response, or it was incomplete or unreadable.
        """
        request = auth(request)
        timeout = request.extensions["timeout"]
        try:
            pool = self._pool or self._manager
            response = pool.urlopen(
                request.method,
                request.url.raw_path.decode() if self._pool else str(request.url),
                body=request.content or None,
                headers={name.decode(): value.decode() for name, value in request.headers.raw},
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=timeout["connect"], read=timeout["read"]),
            )
        except exceptions.HTTPError as error:
            _raise_as_httpx(error)
        return httpx.Response(
            response.status,
            headers=list(response.headers.items()),
            stream=_Body(response),
            request=request,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pool:
            self._pool.close()
        self._manager.clear()


def _proxy(url: str) -> str | None:
    """The address of the environment's proxy for a URL, if there is one."""
    target = httpx.URL(url)
    if not may_use_proxy(url) or urllib.request.proxy_bypass(target.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(target.scheme) or proxies.get("all")


def _proxy_manager(address: str, context: ssl.SSLContext | None) -> urllib3.ProxyManager:
    """Connect through a proxy. As with httpx, its URL may lack a scheme or hold a password."""
    proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    login = urllib3.make_headers(proxy_basic_auth=":".join(proxy.auth)) if proxy.auth else None
    return urllib3.ProxyManager(
        str(proxy.url), maxsize=1, retries=False, proxy_headers=login, ssl_context=context
    )


class _Body(httpx.AsyncByteStream):
    """The body of a response, as it was sent; reading it blocks."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = []
        try:
            while chunk := self._response.read1(_CHUNK_BYTES, decode_content=False):
                chunks.append(chunk)
                await asyncio.sleep(0)  # lets the caller's deadline end a body that drips
        except exceptions.HTTPError as error:
            _raise_as_httpx(error)
        self._complete = True
        yield b"".join(chunks)  # httpx takes long for each part

    async def aclose(self) -> None:
        if self._complete:
            self._response.release_conn()
        else:
            self._response.close()


def _raise_as_httpx(error: exceptions.HTTPError) -> NoReturn:
    kind: type[httpx.TransportError]
    match error:
        case exceptions.NewConnectionError():  # refused or unknown, though a ConnectTimeoutError
            kind = httpx.ConnectError
        case exceptions.ConnectTimeoutError():
            kind = httpx.ConnectTimeout
        case exceptions.TimeoutError():
            kind = httpx.ReadTimeout
        case exceptions.ProtocolError():
            kind = httpx.RemoteProtocolError
        case exceptions.ProxyError():
            kind = httpx.ProxyError
        case _:
            kind = httpx.ConnectError
    raise kind(str(error)) from None
