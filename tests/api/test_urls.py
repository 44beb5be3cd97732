from __future__ import annotations

import pytest

from octogen_dagster.sharing.urls import checked_url, may_use_proxy


@pytest.mark.parametrize(
    "url",
    ["https://mcp.octogen.ai/mcp/", "http://127.0.0.1:8080/mcp/", "http://localhost/x"],
)
def test_where_a_token_may_be_sent(url: str) -> None:
    assert checked_url(f" {url} ", "The MCP URL") == url
    assert may_use_proxy(url) is url.startswith("https")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://mcp.octogen.ai/mcp/", "would send a token over plain http: use https"),
        ("http://127.0.0.1.example.com/", "would send a token over plain http"),
        ("ftp://mcp.octogen.ai/", "needs a scheme and a host"),
        ("mcp.octogen.ai/mcp/", "needs a scheme and a host"),
        ("https://", "needs a scheme and a host"),
        ("https://me:secret@mcp.octogen.ai/", "must not carry a user or password"),
        ("https://[::1/", "is not a URL"),
    ],
)
def test_where_it_may_not(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        checked_url(url, "The MCP URL")
    assert str(caught.value).startswith("The MCP URL ")
    assert "secret" not in str(caught.value)
