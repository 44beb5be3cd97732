"""Connection: how to reach the service, as a value that can be kept, shared and pickled."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from octogen_dagster.api.client import DEFAULT_TIMEOUT, OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.urls import DEFAULT_BASE_URL, checked_base_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Connection:
    """How to reach the service.

    Args:
        api_key: The key; pickling drops it, and it is looked up in the environment again.
        base_url: Where the API is.
        timeout: Seconds for each phase of one try of a request.
        concurrency: Catalogs that are read, and products that are looked up, at the same time.
        retry: How requests are retried.
        reserve: Share of the organisation's request budget that bulk reads leave to others.

    Raises:
        MissingAPIKeyError: There is no key.
        ValueError: A setting is out of its range.
    """

    api_key: ApiKey = field(default_factory=ApiKey)
    base_url: str = DEFAULT_BASE_URL
    timeout: float = DEFAULT_TIMEOUT
    concurrency: int = 8
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    reserve: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.api_key, ApiKey):
            raise TypeError("api_key must be an ApiKey, which keeps the key out of sight")
        checked_base_url(self.base_url)
        self.rate_limiter()
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {self.timeout}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")

    def rate_limiter(self) -> RateLimiter:
        """A rate_limiter for one read; its clients share it."""
        return RateLimiter(self.reserve)

    def client(self) -> OctogenClient:
        """A client for any event loop."""
        return OctogenClient(
            api_key=self.api_key,
            base_url=self.base_url,
            timeout=self.timeout,
            retry=self.retry,
            rate_limiter=self.rate_limiter(),
        )

    @contextlib.asynccontextmanager
    async def blocking_client(self, rate_limiter: RateLimiter) -> AsyncIterator[OctogenClient]:
        """A faster client for an event loop that serves one walk and may be blocked."""
        from octogen_dagster.api.transport import BlockingClient

        http = BlockingClient(self.base_url, self.timeout)
        try:
            yield OctogenClient(
                api_key=self.api_key,
                base_url=self.base_url,
                http_client=http,
                retry=self.retry,
                rate_limiter=rate_limiter,
            )
        finally:
            await http.aclose()

    def call(self, operation: Callable[[OctogenClient], Awaitable[_Result]]) -> _Result:
        """One operation of a client, for synchronous callers.

        It runs in a thread of its own, so that it works inside a running event loop as well.
        """

        async def run() -> _Result:
            async with self.blocking_client(self.rate_limiter()) as client:
                return await operation(client)

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="octogen-call") as executor:
            return executor.submit(asyncio.run, run()).result()
