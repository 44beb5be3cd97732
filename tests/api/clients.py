"""Clients of a test server, over each transport and with injected waits."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Literal, Protocol

from octogen_dagster.api.client import DEFAULT_TIMEOUT, OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.requester import HEADERS
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.spending import Spending
from octogen_dagster.api.transport import BlockingTransport
from octogen_dagster.api.wait_log import WaitLog

Transport = Literal["httpx", "blocking"]
TRANSPORTS: tuple[Transport, ...] = ("httpx", "blocking")

ONCE = RetryPolicy(attempts=1)
QUICK = RetryPolicy(attempts=4, first_delay=0.001, max_delay=0.01)


class Server(Protocol):
    """A sandbox or a raw server."""

    @property
    def base_url(self) -> str: ...

    @property
    def api_key(self) -> str: ...


class Clock:
    """Monotonic seconds that pass only when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Waits(list[float]):
    """The seconds of the waits that a client asked for; the waits take no time."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)


@contextlib.asynccontextmanager
async def open_client(
    server: Server,
    transport: Transport = "httpx",
    *,
    retry: RetryPolicy = ONCE,
    rate_limiter: RateLimiter | None = None,
    spending: Spending | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    waits: Waits | None = None,
    wait_log: WaitLog | None = None,
) -> AsyncIterator[OctogenClient]:
    """Open a client of `server`. It does not retry unless `retry` says so."""
    blocking = None
    if transport == "blocking":
        blocking = BlockingTransport(server.base_url, ApiKey(server.api_key), HEADERS)
    try:
        async with OctogenClient(
            api_key=server.api_key,
            base_url=server.base_url,
            timeout=timeout,
            _transport=blocking,
            retry=retry,
            rate_limiter=rate_limiter,
            spending=spending,
            _waits=wait_log,
            _sleep=waits.sleep if waits is not None else None,
        ) as client:
            yield client
    finally:
        if blocking:
            await blocking.aclose()
