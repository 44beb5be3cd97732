"""The login of the published package and ours use one another's files."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from octogen_ai_sdk import _mcp_login_cli, mcp_auth

from octogen_dagster.control_plane import login_files
from octogen_dagster.control_plane.login import DEFAULT_REDIRECT_URI, DEFAULT_SCOPE, login
from octogen_dagster.control_plane.login_files import LoginFiles
from octogen_dagster.control_plane.tokens import access_tokens
from tests.control_plane.test_login import agree, parameters
from tests.sharing.hostile_hub import HostileHub as Hub


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoginFiles:
    """The default files in an empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return LoginFiles.at()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def log_in_with_theirs(hub: Hub, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path.home()  # theirs knew the home folder when it was imported
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID_FILE", f"{home}/.config/octogen/mcp.client-id")
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN_FILE", f"{home}/.config/octogen/mcp.refresh")
    monkeypatch.setenv("OCTOGEN_MCP_REDIRECT_URI_FILE", f"{home}/.config/octogen/mcp.redirect-uri")
    options = ["--authkit-domain", hub.authorization_server, "--resource", hub.mcp_url]
    with ThreadPoolExecutor() as threads:
        monkeypatch.setattr("webbrowser.open", lambda url: threads.submit(return_to_theirs, url))
        assert _mcp_login_cli.main([*options, "--port", str(port)]) == 0


def return_to_theirs(url: str) -> None:
    """Agree, and return once theirs listens, which it does not before it opens the browser."""
    callback = httpx.get(url).headers["location"]
    for _ in range(100_000):
        try:
            httpx.get(callback)
        except httpx.ConnectError:
            continue
        return


def test_the_files_the_port_and_the_scopes_are_those_of_the_published_login(
    hub: Hub, files: LoginFiles, port: int
) -> None:
    for ours, theirs in (
        (login_files.REFRESH_TOKEN_FILE, mcp_auth.DEFAULT_REFRESH_TOKEN_FILE),
        (login_files.CLIENT_ID_FILE, mcp_auth.DEFAULT_CLIENT_ID_FILE),
        (login_files.REDIRECT_URI_FILE, mcp_auth.DEFAULT_REDIRECT_URI_FILE),
    ):
        assert ours == f"~/.config/octogen/{theirs.name}"
        assert theirs.parts[-3:-1] == (".config", "octogen")
    port_of_theirs = mcp_auth.DEFAULT_MCP_LOGIN_PORT
    assert f"http://127.0.0.1:{port_of_theirs}/callback" == DEFAULT_REDIRECT_URI
    assert mcp_auth.DEFAULT_MCP_SCOPE == DEFAULT_SCOPE
    pages: list[str] = []

    def person(url: str) -> None:
        pages.append(url)
        agree(url)

    login(files, show=person, mcp_url=hub.mcp_url, redirect_uri=f"http://127.0.0.1:{port}/callback")
    assert parameters(pages[0])["scope"] == mcp_auth.DEFAULT_MCP_SCOPE


def test_our_login_continues_theirs(
    hub: Hub, files: LoginFiles, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.rotate_refresh_tokens()
    log_in_with_theirs(hub, port, monkeypatch)
    client_id = files.client_id.read()
    access_tokens(token_endpoint=hub.token_endpoint).token()
    login(files, show=agree, mcp_url=hub.mcp_url, redirect_uri=f"http://127.0.0.1:{port}/callback")
    assert files.client_id.read() == client_id
    access_tokens(token_endpoint=hub.token_endpoint).token()


def test_their_login_continues_ours(
    hub: Hub, files: LoginFiles, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.rotate_refresh_tokens()
    login(files, show=agree, mcp_url=hub.mcp_url, redirect_uri=f"http://127.0.0.1:{port}/callback")
    client_id = files.client_id.read()
    tokens = mcp_auth.MCPRefreshTokenProvider(
        client_id=client_id.get_secret_value(),
        refresh_token=None,
        refresh_token_file=files.refresh_token.path,
        token_endpoint=hub.token_endpoint,
    )
    assert tokens()
    log_in_with_theirs(hub, port, monkeypatch)
    assert files.client_id.read() == client_id
