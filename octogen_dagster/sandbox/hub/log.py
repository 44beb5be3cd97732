"""What the hub was asked: the latest calls, in order of arrival."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import count
from threading import Lock
from typing import Any, Literal

_LOGGED_CALLS = 20_000

Surface = Literal["grpc", "mcp", "token"]


@dataclass(frozen=True)
class HubCall:
    """A call as the hub saw it.

    Attributes:
        surface: `grpc` for Analytics Hub, `mcp`, or `token` for the token endpoint.
        method: The gRPC method, the MCP tool, any other MCP method, or `token`.
        arguments: The request: of gRPC with the names of the proto, of a tool its arguments,
            of the token endpoint the grant type and the client.
        outcome: `OK`, a gRPC code such as `PERMISSION_DENIED`, `error` for a tool that failed,
            a JSON-RPC code such as `-32029`, or an HTTP status such as `401`. None while the
            answer is being made.
    """

    surface: Surface
    method: str
    arguments: dict[str, Any]
    outcome: str | None = None


class HubLog:
    """Keeps the latest 20,000 calls."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ids = count()
        self._calls: OrderedDict[int, HubCall] = OrderedDict()

    def begin(self, surface: Surface, method: str, arguments: dict[str, Any]) -> int:
        """Add a call; returns what `end` wants to know."""
        with self._lock:
            call_id = next(self._ids)
            self._calls[call_id] = HubCall(surface, method, arguments)
            if len(self._calls) > _LOGGED_CALLS:
                self._calls.popitem(last=False)
        return call_id

    def end(self, call_id: int, outcome: str) -> None:
        """Note how a call was answered."""
        with self._lock:
            if call_id in self._calls:
                self._calls[call_id] = replace(self._calls[call_id], outcome=outcome)

    def calls(self) -> list[HubCall]:
        """A copy, the earliest first."""
        with self._lock:
            return list(self._calls.values())
