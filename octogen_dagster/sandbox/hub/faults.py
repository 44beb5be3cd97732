"""The faults of the hub: what goes wrong in Analytics Hub, in MCP and at the token endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

from octogen_dagster.sandbox.fault_model import ERROR_STATUS, SECONDS, BaseFault, ValueRule

HubFaultKind = Literal[
    "latency",
    "status",
    "lost_response",
    "tool_error",
    "rate_limit",
    "cell",
    "text_only",
    "unauthorized",
    "html",
    "http_status",
]

TOKEN: Final = "token"  # noqa: S105
"""The `method` of a call of the token endpoint."""
ABSENT: Final = object()
"""The value of a field that a `cell` fault removes."""

GRPC_KINDS: frozenset[HubFaultKind] = frozenset({"latency", "status", "lost_response"})
HTTP_KINDS: frozenset[HubFaultKind] = frozenset(
    {"latency", "unauthorized", "html", "http_status", "lost_response"}
)
TOOL_KINDS: frozenset[HubFaultKind] = frozenset({"tool_error", "rate_limit", "cell", "text_only"})
_GRPC_CODES = frozenset(
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
class HubFault(BaseFault):
    """Something that goes wrong with the calls it selects.

    ```
    HubFault("status", "UNAVAILABLE", method="ListSubscriptions", times=2)
    HubFault("cell", {"status": "melted", "listingResource": ABSENT}, catalog="kumo")
    HubFault("lost_response", method="token", times=1)
    ```

    | kind | value | hits | what the client sees |
    | --- | --- | --- | --- |
    | `latency` | seconds | all | the response comes that much later |
    | `status` | a gRPC code, such as `"UNAVAILABLE"` | gRPC | that error; nothing happened |
    | `lost_response` | | all | gRPC UNAVAILABLE or HTTP 502, but the call *was* done |
    | `tool_error` | the error code | MCP tools | a value with `error` and `message` |
    | `rate_limit` | seconds | MCP tools | JSON-RPC -32029 with `retry_after` |
    | `cell` | fields; `ABSENT` removes one | MCP tools | the cells with these fields |
    | `text_only` | | MCP tools | the value as JSON text, no `structuredContent` |
    | `unauthorized` | | MCP | HTTP 401, as with an expired token |
    | `html` | | MCP, token | HTTP 200 with a web page |
    | `http_status` | 400 to 599 | MCP, token | that status with a web page |

    The token endpoint is hit only by faults with `method="token"`. `latency`, `cell` and
    `text_only` are added to other faults. Of those, the first one that selects a call hits it.

    Attributes:
        kind: The kind of fault.
        value: The value, as in the table.
        times: The number of calls it hits; None for all.
        method: Hit only this gRPC method (`SubscribeListing`), MCP tool
            (`list_bigquery_subscribers`), other MCP method (`initialize`), or `token`.
        catalog: Change only the cells of this catalog; for `cell` alone.

    Raises:
        ValueError: The kind is unknown, or an argument does not fit the kind.
    """

    KINDS = get_args(HubFaultKind)
    VALUES: ClassVar[Mapping[str, ValueRule]] = {
        "latency": SECONDS,
        "status": ValueRule(
            "a gRPC code such as UNAVAILABLE",
            lambda value: isinstance(value, str) and value in _GRPC_CODES,
        ),
        "tool_error": ValueRule(
            "an error code", lambda value: isinstance(value, str) and value != ""
        ),
        "rate_limit": SECONDS,
        "cell": ValueRule(
            "a mapping of fields", lambda value: isinstance(value, Mapping) and len(value) > 0
        ),
        "http_status": ERROR_STATUS,
    }
    COMBINABLE = frozenset({"latency", "cell", "text_only"})

    kind: HubFaultKind
    value: float | int | str | Mapping[str, Any] | None = None
    times: int | None = None
    method: str | None = None
    catalog: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.catalog is not None and self.kind != "cell":
            raise ValueError(f"catalog goes with cell, not with {self.kind}")

    def selects(self, method: str, kinds: frozenset[HubFaultKind]) -> bool:
        """Return True if the method and the kind of this fault fit a call.

        Args:
            method: The method of the call, as in the attribute.
            kinds: The kinds that can happen at this point of the call.
        """
        if self.kind not in kinds:
            return False
        if self.method is None:
            return method != TOKEN
        return self.method == method
