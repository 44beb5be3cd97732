"""What the sandbox was asked: the latest requests, in order of arrival."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from octogen_dagster.sandbox.faults import FaultKind

_LOGGED_REQUESTS = 10_000


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as the sandbox saw it.

    Attributes:
        method: In capitals.
        path: Below the base URL, such as `/products/search`.
        body: The JSON object it carried; None when there was none.
        request_id: The `x-request-id` of its answer.
        has_key: Whether it carried an `Authorization` header.
        page: The number of the page within its walk; 1 for anything but a search.
        faults: The kinds of the faults that hit it.
        status: What it was answered with; None while the answer is being made.
    """

    method: str
    path: str
    body: dict[str, Any] | None
    request_id: str
    has_key: bool
    page: int
    faults: tuple[FaultKind, ...]
    status: int | None = None


class RequestLog:
    """Keeps the latest 10,000 requests."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: OrderedDict[str, ReceivedRequest] = OrderedDict()

    def record(self, request: ReceivedRequest) -> None:
        """Add a request, or replace what is known about it by its request id."""
        with self._lock:
            self._requests[request.request_id] = request
            if len(self._requests) > _LOGGED_REQUESTS:
                self._requests.popitem(last=False)

    def requests(self) -> list[ReceivedRequest]:
        """A copy, the earliest first."""
        with self._lock:
            return list(self._requests.values())
