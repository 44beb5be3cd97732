"""Request flows: the logic for requests as generators, without I/O.

`BlockingClient` and `AsyncDriver` are drivers, which run request flows. A flow yields `Send` and
receives a `Response` or a `TransportError`, or it yields `Wait`. A flow returns a value or raises
an `OctogenError`. A driver must close a flow that it abandons. Otherwise, the flow's share of the
budget and the rate limit stays reserved. Drivers mask the API key in responses.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

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
    is_concurrency_rejection,
)
from octogen_dagster.api.retry import Retries
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenBudgetError,
    OctogenConnectionError,
    OctogenError,
    OctogenRateLimitError,
    OctogenServerError,
    OctogenTimeoutError,
)

if TYPE_CHECKING:
    from octogen_dagster.api.pacing import Slot
    from octogen_dagster.api.service import Service
    from octogen_dagster.api.spending import Charge

T = TypeVar("T")


class Send(NamedTuple):
    """A request to send. The response must be complete within `seconds`.

    The driver updates `charge` when the request is sent and when the response begins.
    """

    request: Request
    seconds: float
    charge: Charge


class Wait(NamedTuple):
    """A wait before the next request. The wait ends early if `until` is done.

    `why` is `rate limit`, `retry`, `concurrency limit` or `first request`.
    """

    seconds: float
    why: str
    is_rate_limited: bool = False
    until: Future[Any] | None = None


@dataclass(slots=True)
class RequestStatistics:
    """Counts of a client's requests and retries, and seconds spent waiting for the rate limit.

    `requests` includes retries.
    """

    requests: int = 0
    retries: int = 0
    rate_limit_wait_seconds: float = 0.0

    def record(self, step: Send | Wait) -> None:
        """Add a request or a wait to the statistics."""
        if isinstance(step, Send):
            self.requests += 1
            return
        self.retries += step.why == "retry"
        if step.is_rate_limited:
            self.rate_limit_wait_seconds += step.seconds


Flow: TypeAlias = Generator[Send | Wait, Response | TransportError | None, T]

LONG_WAIT = 5.0
"""A wait is logged if it takes at least this many seconds. Rate-limit waits are added up."""
_RETRIED = (OctogenConnectionError, OctogenRateLimitError, OctogenServerError)


def request_flow(
    service: Service,
    method: str,
    path: str,
    subject: str,
    body: Mapping[str, Any] | None = None,
    *,
    paced: bool = False,
) -> Flow[Response]:
    """Send a request with retries and return the successful response."""
    request = Request(method, f"{service.base_url}{path}", _content(body))
    if not paced:
        return (yield from _attempts(service, request, path, subject))
    headers: Mapping[str, str] | None = None
    seconds = service.limiter.reserve(service.ends_at - service.clock())
    if seconds is None:
        raise OctogenTimeoutError(
            f"{subject}: the organization's rate limit of "
            f"{service.limiter.requests_per_minute:g} requests per minute does not allow another "
            "request before the deadline. Try again later, or ask Octogen for a higher limit."
        )
    try:
        if seconds:
            _log_pacing(service, seconds)
            yield Wait(seconds, "rate limit", is_rate_limited=True)
        response = yield from _attempts(service, request, path, subject)
        headers = response.headers
    except OctogenAPIError as error:
        headers = error.response.headers
        raise
    finally:
        service.limiter.update(headers)
    return response


def _attempts(service: Service, request: Request, path: str, subject: str) -> Flow[Response]:
    retries, failure = Retries(service.retry), None
    deadline = service.clock() + service.retry.deadline
    while True:
        queued_at = service.clock()
        slot = yield from _slot(service, subject)
        deadline += service.clock() - queued_at  # time in the queue does not count
        ends_at = min(deadline, service.ends_at)
        try:
            return (
                yield from _attempt(service, request, path, subject, ends_at=ends_at, slot=slot)
            )
        except OctogenBudgetError as error:
            raise error from failure  # a lost response might have used up the budget
        except OctogenError as error:
            seconds = retries.wait_after(error)
            if seconds is None or service.clock() + seconds > ends_at:
                raise
            failure = error
            _log_retry(service, error, seconds)
            is_rate_limited = isinstance(error, OctogenRateLimitError)
        yield Wait(seconds, "retry", is_rate_limited)


def _slot(service: Service, subject: str) -> Flow[Slot]:
    """Wait until the concurrency limit allows the request."""
    slot = service.limiter.in_flight.enter()
    try:
        while not slot.done():
            left = service.ends_at - service.clock()
            if left <= 0:
                raise _timeout(service, subject)
            yield Wait(left, "concurrency limit", until=slot)
    except BaseException:
        service.limiter.in_flight.give_up(slot)
        raise
    return slot.result()


def _attempt(
    service: Service, request: Request, path: str, subject: str, *, ends_at: float, slot: Slot
) -> Flow[Response]:
    """Send a request once and record its cost."""
    in_flight = service.limiter.in_flight
    failure: OctogenError | None = None
    succeeded = False
    try:
        seconds = min(service.timeout, ends_at - service.clock())
        if seconds <= 0:
            raise _timeout(service, subject)
        with service.spending.request(path, subject) as charge:
            answer = yield Send(request, seconds, charge)
        failure = _failure(service, answer, subject)
        succeeded = failure is None
    finally:
        throttled = failure is not None and is_concurrency_rejection(failure)
        in_flight.leave(slot, throttled=throttled, succeeded=succeeded)
    if failure is not None:
        raise failure
    assert isinstance(answer, Response)
    return answer


def _failure(
    service: Service, answer: Response | TransportError | None, subject: str
) -> OctogenError | None:
    """Return the error for a request that failed, or None if the request succeeded."""
    if isinstance(answer, Response):
        return None if answer.is_success else error_from_response(answer, subject)
    if isinstance(answer, BodyTooLargeError):
        return invalid_body(answer.response, subject, str(answer))
    if isinstance(answer, TransportTimeoutError):
        return _timeout(service, subject)
    return OctogenConnectionError(
        f"{subject}: {service.base_url} did not return a complete response ({answer}). Check "
        "base_url and the network, then try again."
    )


def _timeout(service: Service, subject: str) -> OctogenTimeoutError:
    seconds = min(service.timeout, service.phase_timeout)
    timeout = "none" if seconds == float("inf") else f"{seconds:g} s"
    return OctogenTimeoutError(
        f"{subject}: {service.base_url} did not respond in time (timeout: {timeout} per attempt, "
        f"{service.retry.deadline:g} s including retries). Try again, or raise the timeout."
    )


def _log_pacing(service: Service, seconds: float) -> None:
    service.log.rate_limit_wait += seconds
    if service.log.rate_limit_wait >= LONG_WAIT:
        service.log.warn(
            f"Waiting {seconds:.1f} s for the organization's rate limit of "
            f"{service.limiter.requests_per_minute:g} requests per minute, of which "
            f"{service.limiter.reserved_percent:g}% is reserved for other clients. Further waits "
            "are not logged. If reads take too long, ask Octogen for a higher limit.",
            "pacing",
        )


def _log_retry(service: Service, error: OctogenError, seconds: float) -> None:
    kind = next(kind for kind in _RETRIED if isinstance(error, kind))
    # Log connection errors even before a short wait, because the URL might be wrong.
    if kind is OctogenConnectionError or seconds >= LONG_WAIT:
        service.log.warn(
            f"{error} Retrying in {seconds:.1f} s. Retries stop after "
            f"{service.retry.deadline:g} s in total. Further retries are not logged.",
            kind,
        )
    if is_concurrency_rejection(error):
        service.log.warn(
            "The service rejected concurrent requests (429 concurrency_limit_exceeded). The limit "
            f"for concurrent requests is now {service.limiter.in_flight.limit:g} and increases "
            "gradually. Further rejections are not logged. To avoid rejections, lower "
            "`concurrency` or run fewer reads in parallel.",
            "in flight",
        )


def _content(body: Mapping[str, Any] | None) -> bytes | None:
    try:
        return None if body is None else msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise ValueError(
            "The request contains an unpaired surrogate, which JSON cannot encode. Remove it."
        ) from None
