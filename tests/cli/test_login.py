from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.bigquery import autosubscribe
from octogen_dagster.cli.login import login
from octogen_dagster.sandbox.listings import HubCall
from tests.control_plane.servers import PRINCIPAL, PROJECT
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault

LOGGED_IN = (
    "Logged in. `octogen-dagster bq autosubscribe` and Dagster find the login by themselves."
)
READER = ["--project", PROJECT, "--principal", PRINCIPAL]


@pytest.fixture(autouse=True)
def _environment(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's environment, without a refresh token: nobody has logged in yet."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("OCTOGEN_MCP_REFRESH_TOKEN", "OCTOGEN_MCP_CLIENT_ID"):
        monkeypatch.delenv(name)


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A person who agrees to everything."""
    with ThreadPoolExecutor() as threads:
        visit = functools.partial(httpx.get, follow_redirects=True)
        monkeypatch.setattr("webbrowser.open", lambda url: threads.submit(visit, url))
        yield


def log_in(*options: str) -> Result:
    return CliRunner().invoke(login, ["--port", "0", *options])


@pytest.mark.usefixtures("browser")
def test_after_a_login_without_arguments_autosubscribe_needs_no_person(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.rotate_refresh_tokens()
    hub.share("acme")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = log_in()
    assert (done.exit_code, done.stderr) == (0, "")
    page, *rest = done.stdout.splitlines()
    assert page.startswith(f"Log in on this page: {hub.authorization_server}/authorize?")
    assert rest == [LOGGED_IN]
    folder = tmp_path / ".config" / "octogen"
    assert (folder / "mcp.refresh").read_text().strip() not in done.stdout
    result = CliRunner().invoke(autosubscribe, [*READER, "--apply"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "acme: subscribed, dataset octogen_acme" in result.stdout


@pytest.mark.slow
def test_a_process_that_fails_prints_one_line(hub: Hub) -> None:
    hub.inject(HubFault("html", method="initialize", times=1))
    program = "from octogen_dagster.cli.bigquery import autosubscribe; autosubscribe()"
    done = subprocess.run(
        [sys.executable, "-c", program, *READER, "--mcp-access-token", hub.access_token],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("browser")
def test_what_the_shell_must_set_and_unset_is_printed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCTOGEN_MCP_URL")
    monkeypatch.delenv("OCTOGEN_MCP_TOKEN_ENDPOINT")
    for name in ("CLIENT_ID", "REFRESH_TOKEN", "ACCESS_TOKEN", "TOKEN_COMMAND"):
        monkeypatch.setenv(f"OCTOGEN_MCP_{name}", "of another login")
    files = ["--client-id-file", "client", "--refresh-token-file", "refresh token"]
    done = log_in("--mcp-url", hub.mcp_url, *files)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:] == [
        "Logged in. Set this for `octogen-dagster bq autosubscribe` and Dagster:",
        f"export OCTOGEN_MCP_CLIENT_ID_FILE={tmp_path}/client",
        f"export OCTOGEN_MCP_REFRESH_TOKEN_FILE='{tmp_path}/refresh token'",
        f"export OCTOGEN_MCP_URL={hub.mcp_url}",
        f"export OCTOGEN_MCP_TOKEN_ENDPOINT={hub.token_endpoint}",
        "unset OCTOGEN_MCP_TOKEN_COMMAND",
        "unset OCTOGEN_MCP_CLIENT_ID",
        "unset OCTOGEN_MCP_REFRESH_TOKEN",
        "unset OCTOGEN_MCP_ACCESS_TOKEN",
    ]


@pytest.mark.usefixtures("browser")
def test_the_new_refresh_token_is_tried_once(hub: Hub, tmp_path: Path) -> None:
    files = ["--client-id-file", f"{tmp_path}/c", "--refresh-token-file", f"{tmp_path}/r"]
    grants = [call.arguments["grant_type"] for call in refreshed(hub, *files)]
    assert grants == ["authorization_code", "refresh_token"]
    assert [call.arguments["grant_type"] for call in refreshed(hub, *files, "--no-verify")] == [
        "authorization_code"
    ]


def refreshed(hub: Hub, *options: str) -> list[HubCall]:
    """Log in, and return the calls of the token endpoint."""
    before = len(hub.calls)
    assert log_in(*options).exit_code == 0
    return [call for call in hub.calls[before:] if call.method == "token"]


@pytest.mark.usefixtures("browser")
def test_a_login_is_printed_as_json_and_its_client_is_used_again(hub: Hub, tmp_path: Path) -> None:
    names = {f"{name}_file": f"{tmp_path}/{name}" for name in ("client_id", "refresh_token")}
    names["redirect_uri_file"] = f"{tmp_path}/redirect_uri"
    files = [word for name, path in names.items() for word in ("--" + name.replace("_", "-"), path)]
    done = log_in(*files, "--json")
    assert done.stderr.startswith("Log in on this page: ")
    result = json.loads(done.stdout)
    assert result == names | {
        "client_id": (tmp_path / "client_id").read_text().strip(),
        "redirect_uri": (tmp_path / "redirect_uri").read_text().strip(),
        "resource": hub.mcp_url,
        "token_endpoint": hub.token_endpoint,
        "verified": True,
    }
    client = ["--client-id", result["client_id"], "--redirect-uri", result["redirect_uri"]]
    again = log_in(*files, *client, "--json", "--no-verify")
    assert json.loads(again.stdout) == result | {"verified": False}


def test_a_client_without_its_redirect_uri_is_an_error() -> None:
    done = log_in("--client-id", "x")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "give that as --redirect-uri." in done.stderr


def test_a_redirect_uri_elsewhere_is_an_error(hub: Hub, tmp_path: Path) -> None:
    files = ["--mcp-client-id-file", f"{tmp_path}/c", "--mcp-refresh-token-file", f"{tmp_path}/r"]
    done = log_in(*files, "--redirect-uri", "https://octogen.example/")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "The redirect URI 'https://octogen.example/' is not one of this machine" in done.stderr


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
