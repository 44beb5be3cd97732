from __future__ import annotations

import logging

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.control_plane.tools import OctogenMCP


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that is logged, debugging included."""
    for name in ("", "mcp", "client", "httpx2", "httpcore2"):
        caplog.set_level("DEBUG", logger=name)
    return caplog


def test_tokens_that_are_sent_are_not_logged(
    octogen: OctogenMCP, refreshed: RefreshedToken, log: pytest.LogCaptureFixture
) -> None:
    octogen.listings()
    octogen.close()
    assert refreshed.token() != SecretStr("")
    assert "sandbox-access-" not in log.text
    assert "sandbox-refresh-" not in log.text
    assert "list_bigquery_listing_resources" in log.text
    for name in ("mcp.client.streamable_http", "httpx2", "httpcore2.http11"):
        assert not logging.getLogger(name).filters
