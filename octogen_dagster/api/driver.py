"""AsyncDriver: runs request flows on an event loop, with httpx or httpx2."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from octogen_dagster.api import http
from octogen_dagster.api.credentials import may_use_proxy
from octogen_dagster.api.flow import Flow, RequestStatistics, Send, T
from octogen_dagster.api.http import (
    BodyTooLargeError,
    Response,
    TransportError,
    TransportTimeoutError,
    is_cut_off,
    parsed_headers,
)
from octogen_dagster.api.service import HEADERS, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx
    import httpx2

    from octogen_dagster.api.spending import Charge

_MAX_AT_ONCE = 16
_PHASES = ("connect", "read", "write", "pool")


def phases_of(timeout: float | httpx.Timeout | httpx2.Timeout) -> dict[str, Any]:
    """Return the timeout in seconds for each phase of a request. None means no limit."""
    return {phase: getattr(timeout, phase, timeout) for phase in _PHASES}


class AsyncDriver:
    """Runs request flows with an asynchronous HTTP client."""

    def __init__(
        self,
        service: Service,
        phases: dict[str, Any],
        http_client: httpx.AsyncClient | httpx2.AsyncClient | None,
    ) -> None:
        import httpx

        self._service = service
        self.statistics = RequestStatistics()
        self._phases = phases
        self._owns_client = http_client is None
        self._http: Any = http_client or httpx.AsyncClient(
            trust_env=may_use_proxy(service.base_url)
        )
        httpx2 = sys.modules.get("httpx2")  # already imported if the caller passed its client
        self._httpx: Any = (
            httpx2 if httpx2 and isinstance(self._http, httpx2.AsyncClient) else httpx
        )

    async def aclose(self) -> None:
        """Close the HTTP client, unless the caller passed it."""
        if self._owns_client:
            await self._http.aclose()

    async def run_all(self, flows: Sequence[Flow[T]]) -> list[T]:
        """Run request flows concurrently."""
        slots = asyncio.Semaphore(_MAX_AT_ONCE)

        async def run(flow: Flow[T]) -> T:
            async with slots:
                return await self.run(flow)

        return await asyncio.gather(*map(run, flows))

    async def run(self, flow: Flow[T]) -> T:
        """Run a request flow and return its result."""
        answer: Response | TransportError | None = None
        with contextlib.closing(flow):
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as end:
                    value: T = end.value
                    return value
                self.statistics.record(step)
                answer = None
                if isinstance(step, Send):
                    answer = await self._send(step)
                elif step.until:
                    seconds = None if step.seconds == float("inf") else step.seconds
                    await asyncio.wait({asyncio.wrap_future(step.until)}, timeout=seconds)
                else:
                    await asyncio.sleep(step.seconds)

    async def _send(self, step: Send) -> Response | TransportError:
        """Send one request. The API key is masked in the result."""
        key, httpx = self._service.api_key, self._httpx
        try:
            async with asyncio.timeout(step.seconds):
                response = await self._exchange(step)
        except BodyTooLargeError as error:
            return BodyTooLargeError(key.redacted(error.response))
        except (httpx.TimeoutException, TimeoutError) as error:
            return TransportTimeoutError(type(error).__name__)
        # httpx parses the `Location` header even if it does not follow redirects.
        except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as error:
            return TransportError(key.masked(f"{type(error).__name__}: {error}"))
        if is_cut_off(response.headers, response.content):
            return TransportError("the connection was closed in the middle of the body")
        return key.redacted(response)

    async def _exchange(self, step: Send) -> Response:
        request, seconds, charge = step
        phases = {
            phase: seconds if value is None else min(value, seconds)
            for phase, value in self._phases.items()
        }
        sent = self._http.build_request(
            request.method,
            request.url,
            headers={**HEADERS, "Accept-Encoding": "gzip"},
            content=request.content,
            extensions={"timeout": phases, "trace": functools.partial(_trace, charge)},
        )
        charge.is_sent = True  # some transports do not emit trace events
        response = await self._http.send(
            sent, auth=self._service.api_key, follow_redirects=False, stream=True
        )
        try:
            headers = parsed_headers(response.headers.raw)
            head = Response(
                response.status_code, headers, request=request, library=self._httpx.__name__
            )
            charge.response_begun(head)
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > http.MAX_BODY_BYTES:
                    raise BodyTooLargeError(head)
        finally:
            await response.aclose()
        return replace(head, content=bytes(body))


async def _trace(charge: Charge, event: str, info: dict[str, Any]) -> None:
    """Record whether the transport began to send the request. Connecting does not count."""
    if event.startswith("connection."):
        charge.is_sent = False
    elif event.endswith("send_request_headers.started"):
        charge.is_sent = info["request"].method != b"CONNECT"
