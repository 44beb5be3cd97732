"""HttpxTransport: the HTTP client of the asynchronous OctogenClient, on httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from octogen_dagster.api.credentials import ApiKey

# httpcore does not look at what a server sent after a response, and would take it for the next one.
_PATH_TO_H11 = ("_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state")


class HttpxTransport:
    """A Transport on httpx.

    Args:
        key: The API key.
        headers: The headers of all requests, besides those of the client.
        timeout: The timeout of each phase of a request.
        client: Sends the requests, and stays open; None for a new client.
        trust_env: True if a new client may use the proxy of the environment.
    """

    def __init__(
        self,
        key: ApiKey,
        headers: Mapping[str, str],
        timeout: float | httpx.Timeout,
        client: httpx.AsyncClient | None = None,
        *,
        trust_env: bool = True,
    ) -> None:
        import httpx

        self._key = key
        self._headers = dict(headers)
        self._phases = httpx.Timeout(timeout).as_dict()
        self._owns_client = client is None
        self._client = client or httpx.AsyncClient(trust_env=trust_env)

    async def send(
        self, request: Request, seconds: float, begun: Callable[[Response], None]
    ) -> Response:
        """`Transport.send`.

        Raises:
            TransportError: There was no complete response.
            TransportTimeoutError: The time is over.
            BodyTooLargeError: The body is too large.
        """
        import anyio
        import httpx

        # The failure is raised outside of the `except` blocks: httpx's own exceptions hold the
        # request, and the key with it, in their frames.
        try:
            # anyio connects for httpx, and fails with a ValueError on Python 3.10 if asyncio's own
            # cancellation ends an attempt.
            with anyio.fail_after(seconds):
                head, body = await self._exchange(request, seconds, begun)
        except (httpx.TimeoutException, TimeoutError) as error:
            failure: TransportError = TransportTimeoutError(type(error).__name__)
        # httpx parses the header `Location` even if it does not follow it.
        except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as error:
            failure = TransportError(f"{type(error).__name__}: {error}")
        else:
            return complete_response(head, body)
        raise failure

    async def aclose(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        if self._owns_client:
            await self._client.aclose()

    async def _exchange(
        self, request: Request, seconds: float, begun: Callable[[Response], None]
    ) -> tuple[Response, bytes]:
        response = await self._client.send(
            self._client.build_request(
                request.method,
                request.url,
                headers=self._headers,
                content=request.content,
                extensions={"timeout": self._capped(seconds)},
            ),
            auth=self._key,
            follow_redirects=False,
            stream=True,
        )
        try:
            headers = parsed_headers(response.headers.raw)
            head = Response(response.status_code, headers, request=request)
            begun(head)
            if response.is_stream_consumed:  # a transport of the caller has read and decoded it
                headers.pop("content-encoding", None)
                return head, response.content
            body = bytearray()
            async for chunk in cast("httpx.AsyncByteStream", response.stream):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise BodyTooLargeError(head)
            if _has_surplus(response):
                await response.extensions["network_stream"].aclose()
        finally:
            await response.aclose()
        return head, bytes(body)

    def _capped(self, seconds: float) -> dict[str, float]:
        """httpx's timeouts, with no phase longer than `seconds`."""
        return {
            phase: seconds if value is None else min(value, seconds)
            for phase, value in self._phases.items()
        }


def _has_surplus(response: httpx.Response) -> bool:
    """True if the connection received more bytes than the response, which is not closed yet."""
    each: Any = response.stream
    for name in _PATH_TO_H11:
        each = getattr(each, name, None)
    return each is not None and bool(each.trailing_data[0])
