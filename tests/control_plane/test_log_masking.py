from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.log_masking import LOGGERS, masking_logs
from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import OctogenError
from tests.api.servers import Received, http
from tests.control_plane.servers import TOKEN, mcp, octogen_at, quick


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that is logged, debugging included."""
    for name in ("", "mcp", "client"):
        caplog.set_level("DEBUG", logger=name)
    yield caplog
    assert not any(logging.getLogger(name).filters for name in LOGGERS)


def test_messages_arguments_and_tracebacks_are_masked(log: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(LOGGERS[0])
    with masking_logs(lambda text: text.replace("SECRET", "[token]")):
        try:
            raise ValueError("SECRET")
        except ValueError:
            logger.exception("sent %s", "SECRET")
    logger.warning("SECRET")
    masked, plain = log.records
    assert (masked.getMessage(), masked.exc_info) == ("sent [token]", None)
    assert plain.getMessage() == "SECRET"


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
        return http(body=event.encode(), content_type=content_type)

    with (
        octogen_at(mcp(respond), timeout=1, retry=quick(deadline=1)) as octogen,
        pytest.raises(OctogenError),
    ):
        octogen.subscribers()
    records = [record for record in log.records if not record.name.startswith("httpcore")]
    logged = "".join(f"{record.getMessage()} {record.exc_info}" for record in records)
    assert "initialize" in logged
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
