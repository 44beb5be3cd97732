"""Connection: the settings of clients, as a value that can be shared and pickled."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from octogen_dagster.api.cancellation import CancelScope, ClosedError, run_within
from octogen_dagster.api.catalog_sources import CatalogSource, GrantedCatalogs
from octogen_dagster.api.client import DEFAULT_TIMEOUT, OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.refusals import ServiceRefusals
from octogen_dagster.api.requester import HEADERS
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.spending import Spending
from octogen_dagster.api.urls import checked_base_url, configured_base_url
from octogen_dagster.api.wait_log import WaitLog
from octogen_dagster.background import DaemonExecutor, run_in_thread
from octogen_dagster.errors import OctogenTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager

_Result = TypeVar("_Result")
_ENDING_SECONDS = 1.5
"""How long a call that is to end is waited for."""


MAX_EXTRA_PAGES_RATIO = 0.05
"""The share of pages that reading a catalog in several walks may add by default."""


@dataclass(frozen=True)
class Connection:
    """The settings of clients, and a way to make them.

    Args:
        api_key: The API key. Pickling drops it; unpickling looks it up in the environment.
        base_url: The base URL of the API; by default the environment's.
        timeout: Seconds for one attempt of a request, from connecting to the last byte of the
            response.
        concurrency: Catalogs that are read, or products that are looked up, at the same time.
        retry: How requests are retried.
        reserve: Share of the organisation's request budget that bulk reads leave to other users.
        spending: Counts what the requests of all clients cost, and limits it if it has a budget.
        catalogs: Where catalogs come from.
        max_extra_pages_ratio: The most pages that reading a catalog in several walks may add, as
            a share of its pages; with 0 each catalog is read in one walk.
        refusals: What the service is known to refuse; all clients share it.
        waits: Says why requests wait or are repeated; all clients share it.
        scope: Its end ends all that blocking clients and calls wait for.

    Raises:
        MissingAPIKeyError: There is no API key.
        ValueError: A setting is out of its range.
    """

    api_key: ApiKey = field(default_factory=ApiKey)
    base_url: str = field(default_factory=configured_base_url)
    timeout: float = DEFAULT_TIMEOUT
    concurrency: int = 8
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    reserve: float = 0.2
    spending: Spending = field(default_factory=Spending, compare=False)
    catalogs: CatalogSource = field(default_factory=GrantedCatalogs)
    max_extra_pages_ratio: float = MAX_EXTRA_PAGES_RATIO
    refusals: ServiceRefusals = field(default_factory=ServiceRefusals, compare=False, repr=False)
    waits: WaitLog = field(default_factory=WaitLog, compare=False, repr=False)
    scope: CancelScope = field(default_factory=CancelScope, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.api_key, ApiKey):
            raise TypeError("api_key must be an ApiKey, which keeps the key out of sight")
        checked_base_url(self.base_url, self.api_key.masked)
        self.rate_limiter()
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")
        if not 0 <= self.max_extra_pages_ratio <= 1:
            raise ValueError(
                "max_extra_pages_ratio must be a share from 0 to 1 (0.05 is 5 %), not "
                f"{self.max_extra_pages_ratio}"
            )

    def rate_limiter(self) -> RateLimiter:
        """Make the rate limiter of one read; all clients of the read share it."""
        return RateLimiter(self.reserve)

    def client(self) -> OctogenClient:
        """Make a client for any event loop."""
        return OctogenClient(
            api_key=self.api_key,
            base_url=self.base_url,
            timeout=self.timeout,
            retry=self.retry,
            rate_limiter=self.rate_limiter(),
            spending=self.spending,
            refusals=self.refusals,
            _waits=self.waits,
        )

    def with_own_scope(self) -> Connection:
        """Return the same connection with a scope within its scope, to be cancelled alone."""
        return replace(self, scope=self.scope.child())

    def with_own_spending(self) -> Connection:
        """Return the same connection, which also counts apart what its own requests cost."""
        return replace(self, spending=self.spending.part())

    def with_log(self, warn: Callable[[str], None]) -> Connection:
        """Return the same connection, which says anew why requests wait, by calling `warn`."""
        return replace(self, waits=WaitLog(warn))

    @contextlib.asynccontextmanager
    async def blocking_client(self, rate_limiter: RateLimiter) -> AsyncIterator[OctogenClient]:
        """Open a faster client for an event loop that nothing else uses: it blocks the loop.

        What it waits for ends soon after the scope, with a `ClosedError`.
        """
        from octogen_dagster.api.transport import BlockingTransport

        transport = BlockingTransport(self.base_url, self.api_key, HEADERS, self.scope)
        try:
            yield OctogenClient(
                api_key=self.api_key,
                base_url=self.base_url,
                timeout=self.timeout,
                _transport=transport,
                _sleep=transport.sleep,
                retry=self.retry,
                rate_limiter=rate_limiter,
                spending=self.spending,
                refusals=self.refusals,
                _waits=self.waits,
            )
        finally:
            await transport.aclose()

    def call(self, operation: Callable[[OctogenClient], Awaitable[_Result]]) -> _Result:
        """Run one operation of a client and block until it is done.

        It runs in a thread of its own, so it works inside a running event loop too. An interrupt of
        the calling thread, such as Ctrl-C or the termination of a Dagster run, ends it soon.

        Args:
            operation: Gets a client that is closed afterwards.

        Raises:
            OctogenTimeoutError: The time of the scope is over.
            ClosedError: The scope was cancelled.
        """
        connection = self.with_own_scope()
        opened = connection.blocking_client(self.rate_limiter())
        return connection._run_in_thread(operation, opened)

    def call_concurrently(
        self, operation: Callable[[OctogenClient], Awaitable[_Result]]
    ) -> _Result:
        """Like `call`, for an operation that sends requests at the same time.

        Args:
            operation: Gets a client that is closed afterwards.

        Raises:
            OctogenTimeoutError: The time of the scope is over.
            ClosedError: The scope was cancelled.
        """
        connection = self.with_own_scope()
        return connection._run_in_thread(operation, connection.client())

    def _run_in_thread(
        self,
        operation: Callable[[OctogenClient], Awaitable[_Result]],
        opened: AbstractAsyncContextManager[OctogenClient],
    ) -> _Result:
        async def run() -> _Result:
            asyncio.get_running_loop().set_default_executor(DaemonExecutor())
            async with opened as client:
                return await operation(client)

        scope = self.scope

        def interrupted(future: Future[_Result]) -> None:
            scope.cancel()
            wait([future], timeout=_ENDING_SECONDS)

        future = run_in_thread(
            lambda: asyncio.run(run_within(scope, run())),
            "octogen-call",
            interrupted,
            scope.remaining + _ENDING_SECONDS,
            scope.poll,
        )
        # An operation that blocks its thread, or a name server, may take longer than the scope.
        failure = future.exception() if future.done() else ClosedError()
        if isinstance(failure, ClosedError) and not scope.is_cancelled:
            raise OctogenTimeoutError(
                f"{self.base_url} did not answer all requests within {scope.seconds:g} s, which is "
                "all the time that there was for them. Try again."
            ) from None
        return future.result()
