"""A person logs in once, in a browser; then commands and Dagster need no person."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from octogen_dagster import OctogenControlPlaneResource
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, http
from tests.messages import Golden
from tests.ports import free_port
from tests.promises.control_plane import SECRET
from tests.servers.octogen_mcp import PRINCIPAL, OctogenServer, parameters, refuse

LOGGED_IN = (
    "Logged in. `octogen-dagster bq autosubscribe` and Dagster use this login automatically."
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the login, in a home that is empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".config/octogen"


def returning_with(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Let the browser return with these parameters and the state."""

    def visit(page: str) -> None:
        sent = parameters(page)
        httpx.get(sent["redirect_uri"], params={"state": sent["state"]} | changes)

    monkeypatch.setattr("webbrowser.open", visit)


def log_in(*options: str) -> Result:
    done = CliRunner().invoke(main, ["login", "--port", "0", *options])
    assert SECRET not in done.output
    return done


def contents(folder: Path) -> dict[str, str]:
    names = ("client-id", "redirect-uri", "refresh")
    return {name: (folder / f"mcp.{name}").read_text().strip() for name in names}


def test_after_a_login_nobody_is_needed(
    golden: Golden, server: OctogenServer, folder: Path, browser: list[str]
) -> None:
    done = log_in()
    assert (done.exit_code, done.stderr) == (0, "")
    page, *rest = done.stdout.splitlines()
    golden("output", page, url=browser[0])
    assert rest == [LOGGED_IN]
    assert contents(folder)["refresh"] == server.refresh_token
    assert [grant["grant_type"] for grant in server.grants] == [
        "authorization_code",
        "refresh_token",  # it is tried once
    ]
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("mcp.client-id", "mcp.redirect-uri", "mcp.refresh"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    with OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as octogen:
        assert octogen.listings() == []
    assert not server.count("DELETE"), "a server may let the request hang that ends a session"


def test_the_login_page_is_asked_for_a_login_that_lasts(
    server: OctogenServer, folder: Path, browser: list[str]
) -> None:
    server.metadata = {"scopes_supported": ["openid"]}
    assert log_in("--resource", server.origin).exit_code == 0
    sent = parameters(browser[0])
    assert sent["scope"] == "openid profile email offline_access"
    assert (sent["code_challenge_method"], len(sent["code_challenge"])) == ("S256", 43)
    assert sent["redirect_uri"].startswith("http://127.0.0.1:")
    assert sent["resource"].startswith(server.origin)


def test_the_client_of_the_last_login_is_used_again_at_its_port(
    server: OctogenServer, folder: Path, browser: list[str]
) -> None:
    port = str(free_port())
    for _ in range(2):
        assert log_in("--port", port).exit_code == 0
    assert server.count("register") == 1
    first = contents(folder)
    assert log_in().exit_code == 0  # at another port
    assert server.count("register") == 2
    client = ["--client-id", first["client-id"], "--redirect-uri", first["redirect-uri"]]
    done = log_in(*client, "--json", "--no-verify")
    assert json.loads(done.stdout) == {
        "client_id": first["client-id"],
        "client_id_file": f"{folder}/mcp.client-id",
        "redirect_uri": first["redirect-uri"],
        "redirect_uri_file": f"{folder}/mcp.redirect-uri",
        "refresh_token_file": f"{folder}/mcp.refresh",
        "resource": server.mcp_url,
        "token_endpoint": server.token_endpoint,
        "verified": False,
    }
    assert contents(folder) == first | {"refresh": server.refresh_token}


def test_what_the_shell_must_set_and_unset_is_printed(
    server: OctogenServer, tmp_path: Path, browser: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "TOKEN_ENDPOINT"):
        monkeypatch.delenv(f"OCTOGEN_MCP_{name}")
    others = ["TOKEN_COMMAND", "CLIENT_ID", "REFRESH_TOKEN", "ACCESS_TOKEN"]
    for name in others:
        monkeypatch.setenv(f"OCTOGEN_MCP_{name}", "of another login")
    files = ["--client-id-file", "client", "--refresh-token-file", "refresh token"]
    done = log_in("--mcp-url", server.mcp_url, *files)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:] == [
        "Logged in. To use this login with `octogen-dagster bq autosubscribe` and Dagster, run:",
        f"export OCTOGEN_MCP_CLIENT_ID_FILE={tmp_path}/client",
        f"export OCTOGEN_MCP_REFRESH_TOKEN_FILE='{tmp_path}/refresh token'",
        f"export OCTOGEN_MCP_URL={server.mcp_url}",
        f"export OCTOGEN_MCP_TOKEN_ENDPOINT={server.token_endpoint}",
        *(f"unset OCTOGEN_MCP_{name}" for name in others),
    ]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"error": "access_denied", "error_description": "No"}, "(access_denied: No)"),
        ({"code": "made-up"}, "(Token exchange failed (400))"),
    ],
)
def test_a_login_that_is_refused_leaves_the_files_alone(
    server: OctogenServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    returned: dict[str, str],
    message: str,
) -> None:
    folder.mkdir(parents=True)
    (folder / "mcp.refresh").write_text("old")
    returning_with(monkeypatch, **returned)
    done = log_in()
    assert done.exit_code == 1
    assert message in done.stderr
    assert (folder / "mcp.refresh").read_text() == "old"
    assert not (folder / "mcp.client-id").exists()


def test_only_the_browser_of_this_login_is_listened_to(
    server: OctogenServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[int] = []

    def visit(page: str) -> None:
        back = parameters(page)["redirect_uri"]
        unused = socket.create_connection(("127.0.0.1", httpx.URL(back).port or 0))
        for query in ("?code=x&state=other", "?code=x", "", "/favicon.ico"):
            said.append(httpx.get(f"{back}{query}").status_code)
        httpx.get(page, follow_redirects=True)
        unused.close()

    monkeypatch.setattr("webbrowser.open", visit)
    assert log_in().exit_code == 0
    assert said == [404] * 4


@pytest.mark.parametrize(
    "tokens",
    [
        {"refresh_token": "refresh-secret-9"},
        {"access_token": "access-secret-9", "refresh_token": ["refresh-secret-9"]},
        {"access_token": "access-secret-9", "token_type": "Bearer"},
        ["access-secret-9"],
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_tokens_that_are_of_no_use_are_not_shown(
    server: OctogenServer, folder: Path, browser: list[str], tokens: Any, status: int
) -> None:
    server.fail("token", http(status, tokens))
    done = log_in("--debug")
    assert done.exit_code == 1
    assert "The login" in done.stderr
    assert not (folder / "mcp.refresh").exists()


def test_a_server_that_repeats_the_token_shows_none(
    server: OctogenServer, folder: Path, browser: list[str]
) -> None:
    def repeat(request: Any) -> list[bytes]:
        return refuse(request, code=-32600, message=request.headers["authorization"])

    server.fail("initialize", repeat)
    done = log_in()
    assert done.exit_code == 1
    assert "failed (Bearer [token])" in done.stderr


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint"])
def test_a_login_in_the_clear_on_another_machine_does_not_begin(
    golden: Golden, server: OctogenServer, folder: Path, browser: list[str], name: str
) -> None:
    server.metadata = {name: "http://login.example/x"}
    done = log_in()
    assert done.exit_code == 1
    golden("errors", done.stderr)
    assert browser == []


def test_a_registration_that_is_refused_or_has_a_secret(
    golden: Golden, server: OctogenServer, folder: Path, browser: list[str]
) -> None:
    server.fail("register", http(503))
    assert "failed (Registration failed: 503)" in log_in().stderr
    server.registration = {"client_secret": "client-secret-9"}
    done = log_in()
    golden("errors", done.stderr)
    assert (done.exit_code, browser) == (1, [])


def test_the_person_has_limited_time(golden: Golden, server: OctogenServer, folder: Path) -> None:
    done = log_in("--no-open", "--timeout", "0.2")
    assert done.exit_code == 1
    golden("errors", done.stderr)


def test_a_server_that_is_not_octogen(golden: Golden, folder: Path, server: OctogenServer) -> None:
    done = log_in("--no-open", "--mcp-url", "http://127.0.0.1:1/mcp/")
    assert (done.exit_code, done.stdout) == (1, "")
    golden("errors", done.stderr)


def test_beside_the_sandbox_no_login_is_needed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(catalogs=1, hub=True) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        done = log_in("--no-open")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "OCTOGEN_MCP_ACCESS_TOKEN" in done.stderr


def test_a_port_that_is_taken_is_an_error(
    golden: Golden, folder: Path, server: OctogenServer
) -> None:
    taken = httpx.URL(server.origin).port
    done = CliRunner().invoke(main, ["login", "--no-open", "--port", str(taken)])
    assert done.exit_code == 1
    golden("errors", done.stderr, port=taken)


def test_files_that_cannot_be_written_are_an_error_before_anybody_logs_in(
    server: OctogenServer, folder: Path, browser: list[str]
) -> None:
    folder.parent.write_text("no folder")
    done = log_in()
    assert (done.exit_code, browser) == (1, [])
    assert "mcp.refresh" in done.stderr or ".config/octogen" in done.stderr


@pytest.fixture
def origin(server: OctogenServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of Octogen's MCP server, which no variable names."""
    for name in server.environment:
        monkeypatch.delenv(name)
    return server.origin


def test_what_is_different_is_told(golden: Golden, origin: str, browser: list[str]) -> None:
    where = ["--resource", origin, "--authkit-domain", "https://auth.octogen.ai", "--port", "0"]
    told = CliRunner().invoke(main, ["login", *where])
    assert told.exit_code == 1
    golden("errors", told.stderr)
    assert not browser
    where = ["--resource", origin, "--mcp-url", "https://mcp.octogen.ai/mcp/"]
    told = CliRunner().invoke(main, ["login", *where])
    assert told.exit_code == 2
    told = CliRunner().invoke(main, ["login", "--authkit-domain", "auth.octogen.ai"])
    assert told.exit_code == 2


def test_a_server_that_names_no_login_is_not_told_as_another_login(
    golden: Golden, origin: str, browser: list[str]
) -> None:
    def respond(request: Any) -> list[bytes]:
        if request.target == "/register":
            return http(201, {"client_id": "x", "redirect_uris": request.json["redirect_uris"]})
        return http(401 if request.method == "POST" else 404)

    with RawServer(respond) as server:
        where = ["--mcp-url", f"{server.origin}/mcp/", "--authkit-domain", server.origin]
        told = CliRunner().invoke(main, ["login", *where, "--port", "0"])
    assert told.exit_code == 1
    golden("errors", told.stderr)
    assert "--authkit-domain" not in told.stderr
    assert not browser


def test_a_resource_that_is_typed_wins_over_the_environment(
    origin: str, browser: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_URL", "https://mcp.octogen.example/mcp/")
    where = ["--resource", origin, "--authkit-domain", f"{origin}/", "--port", "0"]
    told = CliRunner().invoke(main, ["login", *where])
    assert told.exit_code == 0
    assert f"export OCTOGEN_MCP_URL={origin}/mcp/" in told.stdout.splitlines()
    assert f"export OCTOGEN_MCP_TOKEN_ENDPOINT={origin}/token" in told.stdout.splitlines()
    assert len(browser) == 1
