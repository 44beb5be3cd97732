from __future__ import annotations

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import OctogenError
from tests.api.servers import Received, http
from tests.control_plane.servers import TOKEN, mcp, octogen_at, quick


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that is logged, debugging included."""
    for name in ("", "mcp", "client", "httpx2", "httpcore2"):
        caplog.set_level("DEBUG", logger=name)
    return caplog


@pytest.mark.parametrize(
    "body",
    [
        f'{{"nonsense of {TOKEN}',
        f'{{"jsonrpc": "2.0", "id": 1, "result": "{TOKEN}"}}',
        f'{{"jsonrpc": "2.0", "id": 99, "result": {{"note": "{TOKEN}"}}}}',
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_a_server_that_sends_the_token_back_does_not_get_it_into_the_log(
    log: pytest.LogCaptureFixture, body: str, content_type: str
) -> None:
    def respond(_: Received) -> list[bytes]:
        event = body if content_type == "application/json" else f"data: {body}\n\n"
        return http(body=event.encode(), content_type=content_type, x_echo=TOKEN)

    with (
        octogen_at(mcp(respond), timeout=1, retry=quick(deadline=1)) as octogen,
        pytest.raises(OctogenError),
    ):
        octogen.subscribers()
    logged = "".join(f"{record.getMessage()} {record.exc_info}" for record in log.records)
    assert "initialize" in logged
    assert "x-echo" in logged
    assert TOKEN not in log.text
    assert TOKEN[:12] not in logged


def test_tokens_that_are_sent_are_not_logged(
    octogen: OctogenMCP, refreshed: RefreshedToken, log: pytest.LogCaptureFixture
) -> None:
    octogen.listings()
    octogen.close()
    assert refreshed.token() != SecretStr("")
    assert "sandbox-access-" not in log.text
    assert "sandbox-refresh-" not in log.text
    assert "list_bigquery_listing_resources" in log.text
