from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from mcp_types import CallToolResult

from octogen_dagster.control_plane.tool_results import tool_value
from octogen_dagster.errors import OctogenMCPError
from tests.control_plane.servers import TOKEN, mcp, octogen_at, reply, text_result
from tests.sharing.secrets import leaks


def value_of(result: dict[str, Any]) -> Any:
    return tool_value("a_tool", CallToolResult.model_validate(result))


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (text_result("ignored", structuredContent={"result": [1, 2]}), [1, 2]),
        (text_result("ignored", structuredContent={"cells": []}), {"cells": []}),
        (text_result("[1,", "2]"), [1, 2]),
        (text_result('{"cells": []}'), {"cells": []}),
        (text_result("[5]", structuredContent={"result": None}), [5]),
        (text_result('{"error": null, "status": "active"}'), {"error": None, "status": "active"}),
    ],
)
def test_a_value_is_structured_content_or_json_text(result: dict[str, Any], value: Any) -> None:
    assert value_of(result) == value


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (text_result("sorry"), "answered with something that is not JSON: report it to Octogen."),
        (text_result(), "answered with something that is not JSON: report it to Octogen."),
        (text_result("[" * 100_000), "answered with something that is not JSON: report it to"),
        (text_result("no such\ntool", isError=True), "failed: no such tool."),
        (text_result(isError=True), "failed: no reason given."),
        (text_result('{"error": "x", "message": "y"}', isError=True), "failed: x: y."),
        (
            text_result('{"error": "not_authorized", "message": "no"}'),
            "refused the login (not_authorized: no): it must be of an owner or admin of the "
            "organisation. Let one of them run `octogen-dagster login`.",
        ),
        (
            text_result('{"error": "request_failed", "message": "503"}'),
            "failed on Google's side (request_failed: 503), which may pass: try again later, and "
            "ask Octogen if it does not pass.",
        ),
        (
            text_result(structuredContent={"result": {"error": "x", "message": "y"}}),
            "failed: x: y.",
        ),
        (text_result('{"error": "x"}'), "failed: x."),
        (text_result(json.dumps({"error": "x" * 400})), f"failed: {'x' * 300}."),
    ],
)
def test_a_failure_names_the_tool_and_the_reason(result: dict[str, Any], message: str) -> None:
    with pytest.raises(OctogenMCPError) as caught:
        value_of(result)
    assert str(caught.value).startswith(f"Octogen's MCP tool a_tool {message}")


@pytest.mark.parametrize(
    ("code", "retry_after"), [("request_failed", 0.0), ("not_authorized", None), ("x", None)]
)
def test_a_failure_has_the_code_of_the_tool(code: str, retry_after: float | None) -> None:
    with pytest.raises(OctogenMCPError) as caught:
        value_of(text_result(structuredContent={"result": {"error": code}}))
    copy = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, copy):
        assert (error.code, error.retry_after) == (code, retry_after)


def test_a_failure_that_quotes_the_token_does_not_show_it() -> None:
    result = text_result(json.dumps({"error": f"bad {TOKEN}"}))
    with (
        octogen_at(mcp(lambda request: reply(request, result))) as octogen,
        pytest.raises(OctogenMCPError, match=r"failed: bad \[access token\]\.") as caught,
    ):
        octogen.subscribers()
    assert leaks(caught.value, TOKEN) == []
