"""The error that a failed tool call stands for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from octogen_dagster.control_plane.parsing import parsed_seconds
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp.shared.exceptions import MCPError

    from octogen_dagster.control_plane.http_exchange import HttpExchange

_RATE_LIMITED = -32029
_DEFAULT_RATE_LIMIT_SECONDS = 1.0
_MAX_REASON_LENGTH = 300


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """Return the errors in a group of errors, at any depth, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaf_errors(part)
    else:
        yield error


def call_error(
    subject: str, failures: Sequence[BaseException], exchange: HttpExchange, timeout: float
) -> OctogenError:
    """Return the error that a failed tool call stands for.

    Args:
        subject: What was called; the message begins with it.
        failures: Everything that the `mcp` package raised, without groups.
        exchange: The HTTP exchange of the call.
        timeout: Seconds that one request was given.

    Raises:
        BaseException: A failure that is a defect of this package, as it is.
    """
    from mcp.shared.exceptions import MCPError
    from mcp_types import CONNECTION_CLOSED

    refusals = [error for error in failures if isinstance(error, MCPError)]
    causes = [error for error in failures if not isinstance(error, MCPError)]
    if any(map(_is_timeout, failures)):
        return OctogenTimeoutError(
            f"{subject} did not answer within {timeout:g} s: try again later."
        )
    if refusals and all(error.code != CONNECTION_CLOSED for error in refusals):
        return _refusal(subject, refusals[0], exchange)
    return _lost_connection(subject, causes)


def _is_timeout(error: BaseException) -> bool:
    import httpx2
    from mcp.shared.exceptions import MCPError
    from mcp_types import REQUEST_TIMEOUT

    if isinstance(error, MCPError):
        return error.code == REQUEST_TIMEOUT
    return isinstance(error, httpx2.TimeoutException)


def _lost_connection(subject: str, causes: Sequence[BaseException]) -> OctogenError:
    import httpx2
    from anyio import BrokenResourceError, ClosedResourceError
    from pydantic import ValidationError

    for error in causes:
        if isinstance(error, ValidationError):
            return OctogenMCPError(
                f"{subject} gave a result that is none of MCP: report it to Octogen."
            )
        if not isinstance(error, httpx2.HTTPError | BrokenResourceError | ClosedResourceError):
            raise error
    reason = type(causes[0]).__name__ if causes else "the connection was closed"
    return OctogenConnectionError(
        f"{subject} did not answer ({reason}): check the address and the network."
    )


def _refusal(subject: str, error: MCPError, exchange: HttpExchange) -> OctogenError:
    """Return the error that a JSON-RPC error or an HTTP status stands for."""
    status = exchange.status
    reason = exchange.masked(" ".join(error.message.split()))[:_MAX_REASON_LENGTH].rstrip(".")
    if error.code == _RATE_LIMITED:
        seconds = _rate_limit_seconds(error)
        return OctogenMCPRateLimitError(
            f"{subject} refused: the organisation's request budget is spent ({reason}). Try "
            f"again in {seconds:g} s.",
            retry_after=seconds,
        )
    if status == 401:
        return OctogenMCPAuthenticationError(
            f"{subject} refused the access token (401): get a new one, or run "
            "`octogen-dagster login` again."
        )
    if status == 429 or status >= 500:
        kind = OctogenMCPRateLimitError if status == 429 else OctogenMCPError
        return kind(
            f"{subject} failed with {status}: try again later.",
            retry_after=exchange.retry_after or 0.0,
        )
    if status >= 400:
        return OctogenMCPError(
            f"{subject} refused with {status} ({reason}): check the address of the MCP server, "
            "and that the login may use it."
        )
    return OctogenMCPError(
        f"{subject} gave no result ({error.code}: {reason}): check the address of the MCP "
        "server, or report it to Octogen."
    )


def _rate_limit_seconds(error: MCPError) -> float:
    data = error.data if isinstance(error.data, dict) else {}
    seconds = parsed_seconds(data.get("retry_after"))
    return _DEFAULT_RATE_LIMIT_SECONDS if seconds is None or seconds < 0 else seconds
