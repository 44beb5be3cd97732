"""Both clients of a test server, with the same methods, so that a test can ask either."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Protocol

import httpx2

from octogen_dagster import OctogenClient
from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.credentials import ApiKey, may_use_proxy
from octogen_dagster.api.flow import Flow
from octogen_dagster.api.operations import domain_flow, list_catalogs_flow
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.service import DEFAULT_TIMEOUT, Generation, Service
from octogen_dagster.api.spending import Spending

Transport = Literal["httpx", "httpx2", "blocking"]
TRANSPORTS: tuple[Transport, ...] = ("httpx", "httpx2", "blocking")
OWN_TRANSPORTS: tuple[Transport, ...] = ("httpx", "blocking")
"""Those without a client that is passed in, for tests that wait for seconds."""

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


FLOWS: dict[str, Callable[..., Flow[Any]]] = {
    "get_domain": domain_flow,
    "list_catalogs": list_catalogs_flow,
}
"""What no caller of the package asks of a BlockingClient."""


class AwaitedBlockingClient:
    """A BlockingClient whose methods are awaited, as those of OctogenClient are."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self.statistics = client.statistics

    @property
    def generation(self) -> Generation:
        """What OctogenClient says of its service, and no caller asks of a BlockingClient."""
        return self._client.service.generation

    def __getattr__(self, name: str) -> Any:
        client, flow = self._client, FLOWS.get(name)
        if flow is not None:

            def method(*arguments: Any) -> Any:
                return client.run(flow(client.service, *arguments))

        else:
            method = getattr(client, name)
        if not callable(method):
            return method

        async def awaited(*arguments: Any, **settings: Any) -> Any:
            return method(*arguments, **settings)

        return awaited


@contextlib.asynccontextmanager
async def open_client(
    server: Server,
    transport: Transport = "httpx",
    *,
    retry: RetryPolicy = ONCE,
    rate_limiter: RateLimiter | None = None,
    spending: Spending | None = None,
    timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109
) -> AsyncIterator[Any]:
    """Open a client of `server`. It does not retry unless `retry` says so."""
    settings: dict[str, Any] = {"base_url": server.base_url, "timeout": timeout, "retry": retry}
    if spending:
        settings["spending"] = spending
    if transport != "blocking":
        async with contextlib.AsyncExitStack() as stack:
            if transport == "httpx2":
                http = httpx2.AsyncClient(trust_env=may_use_proxy(server.base_url))
                settings["http_client"] = await stack.enter_async_context(http)
            yield await stack.enter_async_context(
                OctogenClient(api_key=server.api_key, rate_limiter=rate_limiter, **settings)
            )
        return
    if rate_limiter:
        settings["limiter"] = rate_limiter
    with BlockingClient(Service(api_key=ApiKey(server.api_key), **settings)) as blocking:
        yield AwaitedBlockingClient(blocking)
