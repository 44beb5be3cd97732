"""Requester: sends requests with the API key and applies the time limit, retries and rate limit.

The operations of the service are in `client`.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from octogen_dagster.api.content_encoding import ACCEPTED_ENCODINGS
from octogen_dagster.api.http import (
    BodyTooLargeError,
    Request,
    Response,
    TransportError,
    TransportTimeoutError,
)
from octogen_dagster.api.responses import (
    error_from_response,
    invalid_body,
    is_concurrency_refusal,
)
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenConnectionError,
    OctogenError,
    OctogenRateLimitError,
    OctogenTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx
    import tenacity

    from octogen_dagster.api.credentials import ApiKey
    from octogen_dagster.api.http import Transport
    from octogen_dagster.api.pacing import RateLimiter
    from octogen_dagster.api.retry import RetryPolicy, Sleep
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.api.wait_log import WaitLog

_USER_AGENT = f"octogen-dagster/{importlib.metadata.version('octogen-dagster')}"
# Tells Octogen batch reads from shoppers. ASCII JSON of at most 4,096 bytes.
_REQUEST_CONTEXT = '{"trigger":"background","application":"octogen-dagster"}'
HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": ACCEPTED_ENCODINGS,
    "Content-Type": "application/json",
    "User-Agent": _USER_AGENT,
    "X-Octogen-Request-Context": _REQUEST_CONTEXT,
}
"""The headers of every request, besides the API key."""
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
        transport: Sends the requests; it is not closed here.
        base_url: The base URL of the service.
        key: The API key, which is removed from each response.
        timeout: Seconds for one attempt of a request, from connecting to the last byte of the
            response; the transport has an `httpx.Timeout`, which limits each phase, itself.
        retry: How requests are retried.
        rate_limiter: The rate limit that paced requests obey.
        spending: Counts what the requests cost, and refuses those that exceed its budget.
        waits: Says why requests wait or are repeated.
        sleep: Waits between attempts and for the rate limit.
        clock: Monotonic seconds.

    Attributes:
        statistics: What was sent so far.
    """

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        key: ApiKey,
        *,
        timeout: float | httpx.Timeout,
        retry: RetryPolicy,
        rate_limiter: RateLimiter,
        spending: Spending,
        waits: WaitLog,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._base_url = base_url
        self._key = key
        if isinstance(timeout, int | float):
            self._attempt_seconds, self._shown_timeout = float(timeout), _shown(timeout)
        else:
            self._attempt_seconds, self._shown_timeout = float("inf"), _shown(timeout.read)
        self._retry_policy = retry
        self._rate_limiter = rate_limiter
        self._spending = spending
        self._waits = waits
        self._sleep = sleep
        self._clock = clock
        self.statistics = RequestStatistics()

    async def request(
        self,
        method: str,
        path: str,
        subject: str,
        body: Mapping[str, Any] | None = None,
        *,
        paced: bool = False,
    ) -> Response:
        """Send a request, retry it as the policy allows, and return the successful response.

        Args:
            method: The HTTP method.
            path: The path below the base URL.
            subject: What is requested; begins error messages.
            body: A JSON object to send.
            paced: True for one of many requests, which obey the rate limiter.

        Raises:
            ValueError: A text of the body is no Unicode.
            OctogenError: No attempt brought a successful response.
        """
        headers: Mapping[str, str] | None = None
        request = Request(method, f"{self._base_url}{path}", _content(body))
        try:
            if paced:
                await self._wait_for_rate_limit()
            started = self._clock()
            deadline = started + self._retry_policy.deadline
            attempt = functools.partial(self._attempt, request, path, subject, deadline)
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
        attempt: Callable[[], Awaitable[Response]],
        failure: OctogenError,
        elapsed: float,
    ) -> Response:
        """Make the attempts after the first; only requests that failed enter tenacity's loop."""
        failures = [failure]

        async def first_failure_then_attempts() -> Response:
            if failures:
                raise failures.pop()
            return await attempt()

        retrying = self._retry_policy.retrying(
            elapsed, sleep=self._sleep, before_sleep=self._note_retry
        )
        response: Response = await retrying(first_failure_then_attempts)
        return response

    async def _wait_for_rate_limit(self) -> None:
        delay = self._rate_limiter.reserve()
        if delay:
            self.statistics.rate_limit_wait_seconds += delay
            self._waits.wait_for_rate_limit(delay, self._rate_limiter)
            await self._sleep(delay)

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        self.statistics.retries += 1
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, OctogenError) and state.next_action:
            self._waits.wait_after(error, state.next_action.sleep, self._retry_policy)
            if is_concurrency_refusal(error):
                self._waits.fewer_at_once(self._rate_limiter.in_flight.limit)
            if isinstance(error, OctogenRateLimitError):
                self.statistics.rate_limit_wait_seconds += state.next_action.sleep

    async def _attempt(
        self, request: Request, path: str, subject: str, deadline: float
    ) -> Response:
        seconds = max(min(deadline - self._clock(), self._attempt_seconds), _MIN_TIMEOUT)
        async with self._rate_limiter.in_flight.turn(self._sleep):
            return await self._send(request, path, subject, seconds)

    async def _send(self, request: Request, path: str, subject: str, seconds: float) -> Response:
        failure: OctogenError
        # The failure is raised outside of the `except` blocks, so that no error of a transport,
        # which may quote the service, is its context.
        try:
            with self._spending.request(path, subject) as charge:
                self.statistics.requests += 1
                response = await self._transport.send(request, seconds, charge.response_begun)
        except TransportTimeoutError:
            failure = OctogenTimeoutError(
                f"{subject}: {self._base_url} did not answer in time (timeout "
                f"{self._shown_timeout}, {self._retry_policy.deadline:g} s with all retries). Try "
                "again, or raise the timeout."
            )
        except TransportError as error:
            reason = self._key.masked(str(error))
            failure = OctogenConnectionError(
                f"{subject}: no complete response from {self._base_url} ({reason}). Check base_url "
                "and the network, then try again."
            )
        except BodyTooLargeError as error:
            failure = invalid_body(self._key.redacted(error.response), subject, str(error))
        else:
            response = self._key.redacted(response)
            if response.is_success:
                return response
            failure = error_from_response(response, subject)
        raise failure


def _content(body: Mapping[str, Any] | None) -> bytes | None:
    try:
        return None if body is None else msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise ValueError(
            "A text of the request has half of a surrogate pair, which JSON cannot say: correct it"
        ) from None


def _shown(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:g} s"
