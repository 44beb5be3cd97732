"""Faults on request of the hub: what goes wrong in Analytics Hub, in MCP and at the login.

This module says which call a fault hits. What a hit call gets instead is in `analytics_hub`,
`mcp_server` and `hub_http`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Literal, get_args

HubFaultKind = Literal[
    "latency",
    "status",
    "lost_answer",
    "tool_error",
    "rate_limit",
    "cell",
    "text_only",
    "unauthorized",
    "html",
    "http_status",
]

_KINDS: tuple[HubFaultKind, ...] = get_args(HubFaultKind)
TOKEN: Final = "token"  # noqa: S105
"""The `method` of a call of the token endpoint."""
ABSENT: Final = object()
"""The value of a field of a cell that a fault leaves out."""

GRPC_KINDS: frozenset[HubFaultKind] = frozenset({"latency", "status", "lost_answer"})
HTTP_KINDS: frozenset[HubFaultKind] = frozenset(
    {"latency", "unauthorized", "html", "http_status", "lost_answer"}
)
TOOL_KINDS: frozenset[HubFaultKind] = frozenset({"tool_error", "rate_limit", "cell", "text_only"})
_STATUSES = frozenset(
    {
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    }
)


@dataclass(frozen=True)
class HubFault:
    """Something that goes wrong with the calls it selects.

    ```
    HubFault("status", "UNAVAILABLE", method="ListSubscriptions", times=2)
    HubFault("cell", {"status": "melted", "listingResource": ABSENT}, catalog="kumo")
    HubFault("lost_answer", method="token", times=1)
    ```

    | kind | value | hits | what the client sees |
    | --- | --- | --- | --- |
    | `latency` | seconds | all | the answer comes that much later |
    | `status` | a gRPC code, such as `"UNAVAILABLE"` | gRPC | that error; nothing happened |
    | `lost_answer` | | all | gRPC UNAVAILABLE or HTTP 502, but the call *was* done |
    | `tool_error` | the error code | MCP tools | a value with `error` and `message` |
    | `rate_limit` | seconds | MCP tools | JSON-RPC -32029 with `retry_after` |
    | `cell` | fields; `ABSENT` leaves one out | MCP tools | the cells with these fields |
    | `text_only` | | MCP tools | the value as JSON text, no `structuredContent` |
    | `unauthorized` | | MCP | HTTP 401, as with an expired token |
    | `html` | | MCP, token | HTTP 200 with a web page |
    | `http_status` | 400 to 599 | MCP, token | that status with a web page |

    The token endpoint is hit only by faults with `method="token"`. Latency comes on top of
    other faults; of those, the first that selects a call hits it.

    Attributes:
        kind: What goes wrong.
        value: As in the table.
        method: Only this gRPC method (`SubscribeListing`), MCP tool
            (`list_bigquery_subscribers`), other MCP method (`initialize`), or `token`.
        times: How many calls it hits; None for all.
        catalog: Only cells of this catalog; for `cell` alone.

    Raises:
        ValueError: The parts do not make sense together.
    """

    kind: HubFaultKind
    value: float | int | str | Mapping[str, Any] | None = None
    method: str | None = None
    times: int | None = None
    catalog: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; there are {', '.join(_KINDS)}")
        _check_value(self.kind, self.value)
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be 1 or more, not {self.times}")
        if self.catalog is not None and self.kind != "cell":
            raise ValueError(f"catalog goes with cell, not with {self.kind}")

    def selects(self, method: str, kinds: frozenset[HubFaultKind]) -> bool:
        """Whether a call is one that this fault is about.

        Args:
            method: As in the attribute.
            kinds: What can go wrong at this point of the call.
        """
        if self.kind not in kinds:
            return False
        return self.method == method if self.method or method == TOKEN else True


class HubFaults:
    """The faults in force, and how many more calls each may hit."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._in_force: list[_InForce] = []

    def inject(self, fault: HubFault) -> None:
        with self._lock:
            self._in_force.append(_InForce(fault, fault.times))

    def clear(self) -> None:
        with self._lock:
            self._in_force.clear()

    def hit(self, method: str, kinds: frozenset[HubFaultKind]) -> list[HubFault]:
        """The faults that hit a call now: any number that add up, and at most one other.

        Latencies, cells and text add up.

        The arguments are those of `HubFault.selects`.
        """
        hits: list[HubFault] = []
        with self._lock:
            for entry in self._in_force:
                fault = entry.fault
                if entry.left == 0 or not fault.selects(method, kinds):
                    continue
                if fault.kind in _ADD_UP or all(hit.kind in _ADD_UP for hit in hits):
                    hits.append(fault)
                    entry.left = None if entry.left is None else entry.left - 1
        return hits


@dataclass
class _InForce:
    fault: HubFault
    left: int | None


_ADD_UP: frozenset[HubFaultKind] = frozenset({"latency", "cell", "text_only"})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0


_VALUES: dict[HubFaultKind, tuple[str, Callable[[Any], bool]]] = {
    "latency": ("seconds, 0 or more, such as 0.2", _is_number),
    "status": ("a gRPC code such as UNAVAILABLE", lambda value: value in _STATUSES),
    "tool_error": ("an error code", lambda value: isinstance(value, str) and value != ""),
    "rate_limit": ("seconds, 0 or more", _is_number),
    "cell": ("a mapping of fields", lambda value: isinstance(value, Mapping) and len(value) > 0),
    "http_status": (
        "a number from 400 to 599",
        lambda value: isinstance(value, int) and 400 <= value <= 599,
    ),
}
"""What the value of a kind must be; the others take none."""


def _check_value(kind: HubFaultKind, value: object) -> None:
    if kind not in _VALUES:
        if value is not None:
            raise ValueError(f"{kind} takes no value, so not {value!r}")
        return
    wanted, is_right = _VALUES[kind]
    if not is_right(value):
        raise ValueError(f"{kind} needs {wanted}; not {value!r}")
