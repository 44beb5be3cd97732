"""BlockingClient: requests that block their thread, for bulk reads."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
import urllib3
from urllib3 import exceptions

if TYPE_CHECKING:
    import ssl

    from octogen_dagster.api.credentials import ApiKey

_CHUNK = 1 << 20


class BlockingClient:
    """The part of `httpx.AsyncClient` that OctogenClient uses, on urllib3 and blocking.

    For an event loop that has a thread of its own and serves one walk at a time: blocking it stops
    nobody else, and a page costs about half of what httpx's asynchronous client takes for it
    (measured in `benchmarks/`). Proxies and certificates come from the environment, as with httpx.

    Args:
        url: Where the requests will go.
        timeout: Seconds for each phase of a request.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.timeout = httpx.Timeout(timeout)
        target = httpx.URL(url)
        context = httpx.create_ssl_context() if target.scheme == "https" else None
        # Plain http is for this machine only, and no proxy may see the key.
        direct = target.scheme == "http" or urllib.request.proxy_bypass(target.host)
        proxies = {} if direct else urllib.request.getproxies()
        proxy = proxies.get(target.scheme) or proxies.get("all")
        self._manager = (
            _proxy_pool(proxy, context)
            if proxy
            else urllib3.PoolManager(maxsize=1, retries=False, ssl_context=context)
        )
        # Without a proxy, the host's own pool need not be looked up for each request.
        self._pool = None if proxy else self._manager.connection_from_url(url)

    def build_request(self, method: str, url: str, *, headers: dict[str, str]) -> httpx.Request:
        """A request with these headers and those that every request has."""
        return httpx.Request(method, url, headers={"Accept-Encoding": "gzip, deflate", **headers})

    async def send(self, request: httpx.Request, *, auth: ApiKey, **_: Any) -> httpx.Response:
        """Send the request, blocking the thread until the whole answer is here.

        Redirects are not followed.

        Raises:
            httpx.TransportError: There was no answer, or only a part of one.
        """
        auth.authorize(request)
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
            content = await _content(response)
        except exceptions.HTTPError as error:
            _raise_as_httpx(error)
        return httpx.Response(
            response.status,
            headers=list(response.headers.items()),
            content=content,
            request=request,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pool:
            self._pool.close()
        self._manager.clear()


def _proxy_pool(address: str, context: ssl.SSLContext | None) -> urllib3.ProxyManager:
    """Connections through a proxy; as with httpx, its URL may lack a scheme or hold a password."""
    proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    login = urllib3.make_headers(proxy_basic_auth=":".join(proxy.auth)) if proxy.auth else None
    return urllib3.ProxyManager(
        str(proxy.url), maxsize=1, retries=False, proxy_headers=login, ssl_context=context
    )


async def _content(response: urllib3.BaseHTTPResponse) -> bytes:
    complete = False
    try:
        chunks = []
        while chunk := response.read1(_CHUNK, decode_content=False):
            chunks.append(chunk)
            await asyncio.sleep(0)  # lets the caller's deadline end a body that drips
        complete = True
        return b"".join(chunks)
    finally:
        if complete:
            response.release_conn()
        else:
            response.close()


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
