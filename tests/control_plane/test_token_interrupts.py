"""An interrupt while the token endpoint replaces the refresh token."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.api.servers import RawServer, http

OLD, NEW = "refresh-old", "refresh-new"
AUTOSUBSCRIBE = "from octogen_dagster.cli.bigquery import autosubscribe; autosubscribe()"
POLL_SECONDS = 60


class SlowEndpoint:
    """A token endpoint that answers when it is let."""

    def __init__(self) -> None:
        self.asked, self.let = threading.Event(), threading.Event()

    def __call__(self, request: Any) -> list[bytes]:
        self.asked.set()
        assert self.let.wait(POLL_SECONDS)
        tokens = {"access_token": "access", "refresh_token": NEW, "token_type": "Bearer"}
        return http(body=tokens)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_the_new_refresh_token_is_stored_before_an_interrupt_counts(
    tmp_path: Path, by: signal.Signals, times: int
) -> None:
    file = tmp_path / "refresh"
    file.write_text(OLD)
    endpoint = SlowEndpoint()
    with RawServer(endpoint) as server:
        options = {
            "--project": "my-project",
            "--principal": "serviceAccount:reader@my-project.iam.gserviceaccount.com",
            "--mcp-url": f"{server.origin}/mcp/",
            "--mcp-client-id": "client",
            "--mcp-refresh-token-file": str(file),
            "--mcp-token-endpoint": f"{server.origin}/token",
        }
        words = [word for option in options.items() for word in option]
        process = subprocess.Popen(
            [sys.executable, "-c", AUTOSUBSCRIBE, *words], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr
        try:
            assert endpoint.asked.wait(POLL_SECONDS)
            process.send_signal(by)
            said = process.stderr.readline()
            if times == 2:
                process.send_signal(by)
                process.wait(POLL_SECONDS)
            endpoint.let.set()
            process.communicate(timeout=POLL_SECONDS)
        finally:
            process.kill()
    assert said == (
        "The token endpoint may be replacing the refresh token: its answer is waited for, so that "
        "the new one is not lost. Interrupt again to leave at once.\n"
    )
    assert process.returncode == (1 if by == signal.SIGINT else 143)
    assert file.read_text().strip() == (NEW if times == 1 else OLD)
