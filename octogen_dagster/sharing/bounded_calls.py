"""Calls of Google's gRPC clients that are bounded in time and in pages, and retried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from octogen_dagster.background import Deadline
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryUnreachableError
from octogen_dagster.sharing.google_errors import status_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PAGES = 1000
_TRANSIENT = {
    "ABORTED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
}

_Response = TypeVar("_Response")


class BoundedCalls:
    """Makes the calls of one client.

    Args:
        timeout: Seconds for one attempt of a call.
        deadline: Seconds for a call with all its attempts, and for a list with all its pages.
        first_wait: The longest wait before the second attempt, in seconds; it doubles with each
            further attempt.
        within: The time for all calls: no attempt begins when it has ended, or outlives it.
    """

    def __init__(
        self, timeout: float, deadline: float, first_wait: float, within: Deadline | None = None
    ) -> None:
        self._timeout = timeout
        self._deadline = deadline
        self._first_wait = first_wait
        self._within = within or Deadline.after(float("inf"))

    def call(self, method: Callable[..., _Response], request: Any) -> _Response:
        """Call a method, and again while it fails in a way that may pass.

        Args:
            method: A method of a client of Google.
            request: Its request.

        Raises:
            google.api_core.exceptions.RetryError: No attempt succeeded in time.
            google.api_core.exceptions.GoogleAPICallError: The call was refused.
        """
        return self._call_within(self._within.within(self._deadline), method, request)

    def iter_pages(self, method: Callable[..., Any], request: Any, subject: str) -> Iterator[Any]:
        """Yield each page of a list once, all within one deadline.

        Args:
            method: A method of a client of Google that returns a pager.
            request: The request of the first page. It is changed.
            subject: What is listed; the messages of errors begin with it.

        Raises:
            OctogenBigQueryUnreachableError: The deadline is over.
            OctogenBigQueryError: The pages repeat, or are too many.
            google.api_core.exceptions.GoogleAPIError: As for `call`.
        """
        deadline = self._within.within(self._deadline)
        seen = set()
        for number in range(1, MAX_PAGES + 1):
            page = next(self._call_within(deadline, method, request).pages)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return
            if request.page_token in seen:
                raise OctogenBigQueryError(
                    f"{subject}: the pages repeat in a circle, so they cannot be read completely. "
                    "Try again later."
                )
            seen.add(request.page_token)
            if not deadline.left:
                raise OctogenBigQueryUnreachableError(
                    f"{subject}: {number} pages were read within {deadline.seconds:g} s, and there "
                    "are more. Try again later."
                )
        raise OctogenBigQueryError(
            f"{subject}: {MAX_PAGES} pages were read and there are more, so they cannot be read "
            "completely. Report it to Octogen."
        )

    def _call_within(
        self, deadline: Deadline, method: Callable[..., _Response], request: Any
    ) -> _Response:
        from google.api_core import exceptions, retry

        def attempt() -> _Response:
            seconds = min(self._timeout, deadline.left)
            if not seconds:
                raise exceptions.DeadlineExceeded("no time was left to send it")  # type: ignore[no-untyped-call]
            return method(request, retry=None, timeout=seconds)

        failures: list[Exception] = []
        policy = retry.Retry(
            predicate=lambda error: status_code(error) in _TRANSIENT,
            initial=self._first_wait,
            maximum=10.0,
            multiplier=2.0,
            timeout=deadline.left,
            on_error=failures.append,
        )
        try:
            return policy(attempt)()
        except exceptions.RetryError:
            # The time of the last attempt may have ended before it met what the others did.
            explained = [
                each for each in failures if not isinstance(each, exceptions.DeadlineExceeded)
            ]
            cause = (explained or failures)[-1]
        raise exceptions.RetryError("No attempt succeeded.", cause)  # type: ignore[no-untyped-call]
