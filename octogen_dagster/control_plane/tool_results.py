"""The value in the result of a tool call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from octogen_dagster.errors import OctogenMCPError

if TYPE_CHECKING:
    from mcp_types import CallToolResult

_MAX_REASON_LENGTH = 300


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
    if result.is_error:
        raise _tool_failure(tool, text)
    value = _structured_value(result)
    if value is None:
        value = _parsed_value(tool, text)
    if isinstance(value, dict) and value.get("error"):
        reasons = [str(value[key]) for key in ("error", "message") if value.get(key)]
        raise _tool_failure(tool, ": ".join(reasons))
    return value


def _structured_value(result: CallToolResult) -> Any:
    content = result.structured_content
    return content["result"] if isinstance(content, dict) and "result" in content else content


def _parsed_value(tool: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise OctogenMCPError(
            f"Octogen's MCP tool {tool} answered with something that is not JSON: report it to "
            "Octogen."
        ) from None


def _tool_failure(tool: str, reason: str) -> OctogenMCPError:
    reason = " ".join(reason.split())[:_MAX_REASON_LENGTH] or "no reason given"
    return OctogenMCPError(f"Octogen's MCP tool {tool} failed: {reason}.")
