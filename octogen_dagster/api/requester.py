"""Requester: one request to the service, authorized, limited in time, retried and paced.

What is asked for, and what the answers mean, is in `client`.
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
    from octogen_dagster.api.retry import RetryPolicy
    from octogen_dagster.api.transport import BlockingClient

_USER_AGENT = f"octogen-dagster/{importlib.metadata.version('octogen-dagster')}"


@dataclass(slots=True)
class RequestStatistics:
    """What was sent so far.

    Attributes:
        requests: Requests sent, retries among them.
        retries: Requests sent again after a failure.
        rate_limit_wait_seconds: Seconds waited for the organisation's rate limit.
    """

    requests: int = 0
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0


class Requester:
    """Sends requests to one service with one key.

    Args:
        http: What sends them; it is not closed here.
        base_url: Where the service is.
        key: Put on each request, and taken out of what comes back.
        timeout: For each phase of one try of a request.
        retry: How requests are retried.
        rate_limiter: How fast those may go that are paced.
    """

    def __init__(
        self,
        http: httpx.AsyncClient | BlockingClient,
        base_url: str,
        key: ApiKey,
        *,
        timeout: httpx.Timeout,
        retry: RetryPolicy,
        rate_limiter: RateLimiter,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._key = key
        self._timeout = timeout
        self._retry = retry
        self._rate_limiter = rate_limiter
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
        """The answer to a request.

        Args:
            method: HTTP's.
            path: Follows the base URL.
            subject: What is asked for, to begin error messages with.
            body: Goes out as JSON.
            paced: Whether this is one of many, which keep to the pace of bulk reads.

        Raises:
            OctogenError: There was no answer, or one that says no, and retrying did not help.
        """
        headers: httpx.Headers | None = None
        try:
            if paced:
                await self._take_place()
            begun = time.monotonic()
            deadline = begun + self._retry.deadline
            attempt = functools.partial(self._attempt, method, path, subject, body, deadline)
            try:
                response = await attempt()
            except OctogenError as error:
                response = await self._try_again(attempt, error, time.monotonic() - begun)
            headers = response.headers
            return response
        except OctogenAPIError as error:
            headers = error.response.headers
            raise
        finally:
            if paced:
                self._rate_limiter.update(headers)

    async def _try_again(
        self, attempt: Callable[[], Awaitable[httpx.Response]], failure: OctogenError, spent: float
    ) -> httpx.Response:
        """The rest of the attempts; tenacity's loop is entered by the requests that failed only."""
        failures = [failure]

        async def first_failure_then_attempt() -> httpx.Response:
            if failures:
                raise failures.pop()
            return await attempt()

        retrying = self._retry.retrying(spent, before_sleep=self._note_retry)
        response: httpx.Response = await retrying(first_failure_then_attempt)
        return response

    async def _take_place(self) -> None:
        delay = self._rate_limiter.reserve()
        if delay:
            self.statistics.rate_limit_wait_seconds += delay
            await asyncio.sleep(delay)

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        self.statistics.retries += 1
        error = state.outcome.exception() if state.outcome else None
        if getattr(error, "status_code", None) == 429 and state.next_action:
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

        remaining = deadline - time.monotonic()
        request = self._build_request(method, path, body, max(remaining, 0.001))
        self.statistics.requests += 1
        failure: OctogenError
        # The failure is raised outside of the `except` blocks: httpx's own exceptions hold the
        # request, and the key with it, in their frames.
        try:
            async with timeout(remaining):
                response = await self._http.send(request, auth=self._key, follow_redirects=False)
        except (httpx.TimeoutException, asyncio.TimeoutError):
            failure = OctogenTimeoutError(
                f"{subject}: {self._base_url} did not answer in time (timeout "
                f"{_seconds(self._timeout)}, {self._retry.deadline:g} s with all retries). Try "
                "again, or raise the timeout."
            )
        except httpx.RequestError as error:
            failure = OctogenConnectionError(
                f"{subject}: no complete answer from {self._base_url} "
                f"({type(error).__name__}: {error}). Check base_url and the network, then try "
                "again."
            )
        else:
            response = self._key.redacted(response)
            if response.is_success:
                return response
            failure = error_from_response(response, subject)
        raise failure

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
    """httpx's timeout extension, no phase longer than `seconds`."""
    return {
        phase: seconds if value is None else min(value, seconds)
        for phase, value in timeout.as_dict().items()
    }


def _seconds(timeout: httpx.Timeout) -> str:
    return "none" if timeout.read is None else f"{timeout.read:g} s"
