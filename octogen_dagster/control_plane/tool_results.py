"""The value in the result of a tool call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from octogen_dagster.errors import OctogenMCPError

if TYPE_CHECKING:
    from mcp_types import CallToolResult

_MAX_REASON_LENGTH = 300
_NOT_JSON: Final = object()


def tool_value(tool: str, result: CallToolResult) -> Any:
    """Return the value of a tool: structured content, or else JSON text.

    Args:
        tool: The name of the tool.
        result: What the tool call returned.

    Raises:
        OctogenMCPError: The tool failed, or its value cannot be read. The message may quote a
            secret that was sent.
    """
    text = "\n".join(block.text for block in result.content if block.type == "text")
    value = _structured_value(result)
    if value is None:
        value = _parsed_value(text)
    if isinstance(value, dict) and value.get("error"):
        raise _tool_failure(tool, str(value["error"]), str(value.get("message") or ""))
    if result.is_error:
        raise _tool_failure(tool, None, text)
    if value is _NOT_JSON:
        raise OctogenMCPError(
            f"Octogen's MCP tool {tool} answered with something that is not JSON: report it to "
            "Octogen."
        )
    return value


def _structured_value(result: CallToolResult) -> Any:
    content = result.structured_content
    return content["result"] if isinstance(content, dict) and "result" in content else content


def _parsed_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _tool_failure(tool: str, code: str | None, message: str) -> OctogenMCPError:
    reason = " ".join(": ".join(filter(None, [code, message])).split())[:_MAX_REASON_LENGTH]
    if code == "not_authorized":
        return OctogenMCPError(
            f"Octogen's MCP tool {tool} refused the login ({reason}): it must be of an owner or "
            "admin of the organisation. Let one of them run `octogen-dagster login`.",
            code=code,
        )
    if code == "request_failed":
        return OctogenMCPError(
            f"Octogen's MCP tool {tool} failed on Google's side ({reason}), which may pass: try "
            "again later, and ask Octogen if it does not pass.",
            retry_after=0.0,
            code=code,
        )
    return OctogenMCPError(
        f"Octogen's MCP tool {tool} failed: {reason or 'no reason given'}.", code=code
    )
