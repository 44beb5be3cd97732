"""The log of the requests that the sandbox received, in order of arrival."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Any, Generic, Literal, TypeVar

from octogen_dagster.sandbox.faults import FaultKind

MAX_LOGGED_REQUESTS = 20_000

Surface = Literal["grpc", "mcp", "token"]


@dataclass(frozen=True)
class ReceivedRequest:
    """A request to the REST API.

    Attributes:
        method: The HTTP method, in capitals.
        path: The path below the base URL, such as `/products/search`.
        body: The JSON object in the body; None if there was none.
        request_id: The `x-request-id` of the response.
        has_key: True if it carried an `Authorization` header.
        page: The page of a search, counted from 1; 1 for any other request.
        faults: The kinds of the faults that hit it.
        status: The HTTP status of the response; None until there is a response.
    """

    method: str
    path: str
    body: dict[str, Any] | None
    request_id: str
    has_key: bool
    page: int
    faults: tuple[FaultKind, ...]
    status: int | None = None


@dataclass(frozen=True)
class HubCall:
    """A call of one of the hub's services.

    Attributes:
        surface: `grpc` for Analytics Hub, `mcp`, or `token` for the token endpoint.
        method: The gRPC method, the MCP tool, any other MCP method, or `token`.
        arguments: The fields of a gRPC request by their proto names, the arguments of an MCP tool,
            or the grant type and the client of a token request.
        outcome: `OK`, a gRPC code such as `PERMISSION_DENIED`, `error` for a tool that failed,
            a JSON-RPC code such as `-32029`, or an HTTP status such as `401`. None until there is
            a response.
    """

    surface: Surface
    method: str
    arguments: dict[str, Any]
    outcome: str | None = None


EntryT = TypeVar("EntryT")


class RequestLog(Generic[EntryT]):
    """Keeps the latest entries.

    Instances are safe to use from several threads.

    Args:
        max_entries: The number of entries to keep.
    """

    def __init__(self, max_entries: int = MAX_LOGGED_REQUESTS) -> None:
        self._max_entries = max_entries
        self._lock = Lock()
        self._ids = count()
        self._entries: OrderedDict[int, EntryT] = OrderedDict()

    def add(self, entry: EntryT) -> int:
        """Add an entry and return the id by which it can be replaced."""
        with self._lock:
            entry_id = next(self._ids)
            self._entries[entry_id] = entry
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        return entry_id

    def update(self, entry_id: int, entry: EntryT) -> None:
        """Replace an entry; do nothing if it is no longer kept."""
        with self._lock:
            if entry_id in self._entries:
                self._entries[entry_id] = entry

    def entries(self) -> list[EntryT]:
        """Return a copy of the entries, the earliest first."""
        with self._lock:
            return list(self._entries.values())
