"""How the tests open a client: through httpx, or through the blocking transport of bulk reads."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy

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


def open_client(
    server: Server,
    transport: Transport = "httpx",
    *,
    retry: RetryPolicy = ONCE,
    rate_limiter: RateLimiter | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[OctogenClient]:
    """A client of `server`. It does not retry unless told to."""
    connection = Connection(
        api_key=ApiKey(server.api_key), base_url=server.base_url, retry=retry, **settings
    )
    if transport == "blocking":
        return connection.blocking_client(rate_limiter or connection.rate_limiter())
    if rate_limiter is None:
        return connection.client()
    return OctogenClient(
        api_key=connection.api_key, base_url=server.base_url, retry=retry, rate_limiter=rate_limiter
    )
