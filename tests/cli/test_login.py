from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from octogen_dagster.cli.bigquery import autosubscribe
from octogen_dagster.cli.login import login
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.server import Hub
from tests.control_plane.servers import PRINCIPAL, PROJECT

PERSON = "import sys, httpx; httpx.get(sys.argv[1], follow_redirects=True)"
READER = ["--project", PROJECT, "--principal", PRINCIPAL]


@pytest.fixture(autouse=True)
def _environment(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's environment, without a refresh token: nobody has logged in yet."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("OCTOGEN_MCP_REFRESH_TOKEN", "OCTOGEN_MCP_CLIENT_ID"):
        monkeypatch.delenv(name)


def run_process(
    module: str, command: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    program = f"from octogen_dagster.cli.{module} import {command}; {command}()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_after_a_login_autosubscribe_needs_no_person(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.settings.rotate_refresh_tokens = True
    hub.share("acme")
    files = ["--mcp-client-id-file", "client", "--mcp-refresh-token-file", "refresh token"]
    monkeypatch.chdir(tmp_path)
    done = run_process("login", "login", *files, BROWSER=f"{sys.executable} -c '{PERSON}' %s")
    assert (done.returncode, done.stderr) == (0, "")
    page, *rest = done.stdout.splitlines()
    assert page.startswith(f"Log in on this page: {hub.authorization_server}/oauth2/authorize?")
    assert rest == [
        "Logged in. Set this for `octogen-dagster bq autosubscribe`:",
        f"export OCTOGEN_MCP_CLIENT_ID_FILE={tmp_path}/client",
        f"export OCTOGEN_MCP_REFRESH_TOKEN_FILE='{tmp_path}/refresh token'",
        f"export OCTOGEN_MCP_URL={hub.mcp_url}",
        f"export OCTOGEN_MCP_TOKEN_ENDPOINT={hub.token_endpoint}",
    ]
    assert (tmp_path / "refresh token").read_text().strip() not in done.stdout

    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID_FILE", "client")
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN_FILE", "refresh token")
    hub.inject(HubFault("html", method="initialize", times=1))
    broken = run_process("bigquery", "autosubscribe", *READER)
    assert broken.returncode == 1
    assert len(broken.stderr.splitlines()) == 1
    result = CliRunner().invoke(autosubscribe, [*READER, "--apply"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "acme: subscribed, dataset octogen_acme" in result.stdout


def test_a_port_that_is_taken_is_an_error(hub: Hub, tmp_path: Path) -> None:
    port = hub.endpoint.rpartition(":")[2]
    files = ["--mcp-client-id-file", f"{tmp_path}/c", "--mcp-refresh-token-file", f"{tmp_path}/r"]
    done = CliRunner().invoke(login, [*files, "--no-open", "--port", port])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: port {port} cannot be listened on: ")
    assert "already in use. Choose another one with --port." in done.stderr


def test_a_login_that_cannot_work_is_one_line_and_a_status(tmp_path: Path) -> None:
    files = ["--mcp-client-id-file", f"{tmp_path}/c", "--mcp-refresh-token-file", f"{tmp_path}/r"]
    options = [*files, "--no-open", "--mcp-url", "http://mcp.octogen.ai/"]
    done = CliRunner().invoke(login, options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: The MCP URL 'http://mcp.octogen.ai/' would send a token")


def test_the_help_names_the_options_and_shows_no_secret() -> None:
    done = CliRunner().invoke(login, ["--help"])
    assert done.exit_code == 0
    assert "--mcp-refresh-token-file" in done.stdout
    assert "refresh-" not in done.stdout.replace("refresh-token", "")
