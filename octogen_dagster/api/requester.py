"""Requester: sends requests with the API key and applies the time limit, retries and rate limit.

The operations of the service are in `client`.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from octogen_dagster.api.responses import error_from_response
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenConnectionError,
    OctogenError,
    OctogenRateLimitError,
    OctogenTimeoutError,
)

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx
    import tenacity

    from octogen_dagster.api.credentials import ApiKey
    from octogen_dagster.api.pacing import RateLimiter
    from octogen_dagster.api.retry import RetryPolicy, Sleep
    from octogen_dagster.api.spending import Charge, Spending
    from octogen_dagster.api.transport import HttpClient

_USER_AGENT = f"octogen-dagster/{importlib.metadata.version('octogen-dagster')}"
# Tells Octogen batch reads from shoppers. ASCII JSON of at most 4,096 bytes.
_REQUEST_CONTEXT = '{"trigger":"background","application":"octogen-dagster"}'
_MIN_TIMEOUT = 0.001  # of a request that begins when its deadline has passed


@dataclass(slots=True)
class RequestStatistics:
    """What a client has sent so far.

    Attributes:
        requests: Requests sent, retries included.
        retries: Requests sent again after a failure.
        rate_limit_wait_seconds: Seconds waited for the organisation's rate limit.
    """

    requests: int = 0
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0


class Requester:
    """Sends requests to one service with one API key.

    Args:
        http: Sends the requests; it is not closed here.
        base_url: The base URL of the service.
        key: The API key; it is added to each request and removed from each response.
        timeout: Seconds for each phase of one attempt of a request.
        retry: How requests are retried.
        rate_limiter: The rate limit that paced requests obey.
        spending: Counts what the requests cost, and refuses those that exceed its budget.
        sleep: Waits between attempts and for the rate limit.
        clock: Monotonic seconds.

    Attributes:
        statistics: What was sent so far.
    """

    def __init__(
        self,
        http: HttpClient,
        base_url: str,
        key: ApiKey,
        *,
        timeout: httpx.Timeout,
        retry: RetryPolicy,
        rate_limiter: RateLimiter,
        spending: Spending,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._key = key
        self._timeout = timeout
        self._retry_policy = retry
        self._rate_limiter = rate_limiter
        self._spending = spending
        self._sleep = sleep
        self._clock = clock
        self._templates: dict[str, httpx.Request] = {}
        self.statistics = RequestStatistics()

    async def request(
        self,
        method: str,
        path: str,
        subject: str,
        body: Mapping[str, Any] | None = None,
        *,
        paced: bool = False,
    ) -> httpx.Response:
        """Send a request, retry it as the policy allows, and return the successful response.

        Args:
            method: The HTTP method.
            path: The path below the base URL.
            subject: What is requested; begins error messages.
            body: A JSON object to send.
            paced: True for one of many requests, which obey the rate limiter.

        Raises:
            OctogenError: No attempt brought a successful response.
        """
        headers: httpx.Headers | None = None
        try:
            if paced:
                await self._wait_for_rate_limit()
            started = self._clock()
            deadline = started + self._retry_policy.deadline
            attempt = functools.partial(self._attempt, method, path, subject, body, deadline)
            try:
                response = await attempt()
            except OctogenError as error:
                response = await self._retry(attempt, error, self._clock() - started)
            headers = response.headers
            return response
        except OctogenAPIError as error:
            headers = error.response.headers
            raise
        finally:
            if paced:
                self._rate_limiter.update(headers)

    async def _retry(
        self,
        attempt: Callable[[], Awaitable[httpx.Response]],
        failure: OctogenError,
        elapsed: float,
    ) -> httpx.Response:
        """Make the attempts after the first; only requests that failed enter tenacity's loop."""
        failures = [failure]

        async def first_failure_then_attempts() -> httpx.Response:
            if failures:
                raise failures.pop()
            return await attempt()

        retrying = self._retry_policy.retrying(
            elapsed, sleep=self._sleep, before_sleep=self._count_retry
        )
        response: httpx.Response = await retrying(first_failure_then_attempts)
        return response

    async def _wait_for_rate_limit(self) -> None:
        delay = self._rate_limiter.reserve()
        if delay:
            self.statistics.rate_limit_wait_seconds += delay
            await self._sleep(delay)

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        self.statistics.retries += 1
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, OctogenRateLimitError) and state.next_action:
            self.statistics.rate_limit_wait_seconds += state.next_action.sleep

    async def _attempt(
        self,
        method: str,
        path: str,
        subject: str,
        body: Mapping[str, Any] | None,
        deadline: float,
    ) -> httpx.Response:
        import httpx

        remaining = deadline - self._clock()
        request = self._build_request(method, path, body, max(remaining, _MIN_TIMEOUT))
        failure: OctogenError
        # The failure is raised outside of the `except` blocks: httpx's own exceptions hold the
        # request, and the key with it, in their frames.
        try:
            async with timeout(remaining):
                with self._spending.request(path, subject) as charge:
                    response = await self._send(request, charge)
        except (httpx.TimeoutException, asyncio.TimeoutError):
            failure = OctogenTimeoutError(
                f"{subject}: {self._base_url} did not answer in time (timeout "
                f"{_read_timeout(self._timeout)}, {self._retry_policy.deadline:g} s with all "
                "retries). Try again, or raise the timeout."
            )
        except httpx.RequestError as error:
            failure = OctogenConnectionError(
                f"{subject}: no complete response from {self._base_url} "
                f"({type(error).__name__}: {error}). Check base_url and the network, then try "
                "again."
            )
        else:
            response = self._key.redacted(response)
            if response.is_success:
                return response
            failure = error_from_response(response, subject, self._key.masked)
        raise failure

    async def _send(self, request: httpx.Request, charge: Charge) -> httpx.Response:
        self.statistics.requests += 1
        response = await self._http.send(
            request, auth=self._key, follow_redirects=False, stream=True
        )
        charge.response_begun(response)
        try:
            await response.aread()
        finally:
            await response.aclose()
        return response

    def _build_request(
        self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float
    ) -> httpx.Request:
        import httpx

        template = self._templates.get(path)
        if template is None:
            template = self._templates[path] = self._http.build_request(
                method,
                f"{self._base_url}{path}",
                headers={
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                    "User-Agent": _USER_AGENT,
                    "X-Octogen-Request-Context": _REQUEST_CONTEXT,
                },
            )
            template.headers.pop("content-length", None)
        return httpx.Request(
            method,
            template.url,
            headers=template.headers,
            content=None if body is None else msgspec.json.encode(body),
            extensions={"timeout": _capped(self._timeout, seconds)},
        )


def _capped(timeout: httpx.Timeout, seconds: float) -> dict[str, float]:
    """httpx's timeout extension, with no phase longer than `seconds`."""
    return {
        phase: seconds if value is None else min(value, seconds)
        for phase, value in timeout.as_dict().items()
    }


def _read_timeout(timeout: httpx.Timeout) -> str:
    return "none" if timeout.read is None else f"{timeout.read:g} s"
