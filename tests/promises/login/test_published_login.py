"""`login` takes the command line of the published `octogen-mcp-login`, and each goes on with the
files of the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner
from octogen_ai_sdk import _mcp_login_cli, mcp_auth

from octogen_dagster import OctogenControlPlaneResource
from octogen_dagster.cli.main import main
from tests.api.servers import RawServer, http
from tests.messages import Golden
from tests.ports import free_port
from tests.servers.octogen_mcp import PRINCIPAL, OctogenServer

Login = Callable[..., int]


def ours(*arguments: str) -> int:
    return CliRunner().invoke(main, ["login", *arguments]).exit_code


def published(*arguments: str) -> int:
    return _mcp_login_cli.main([*arguments])


@pytest.fixture(autouse=True)
def server(server: OctogenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of Octogen's MCP server, which is the authorization server too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in server.environment:
        monkeypatch.delenv(name)
    return server.origin


def resource_of(page: str) -> str:
    (resource,) = parse_qs(urlsplit(page).query)["resource"]
    return resource


@pytest.mark.parametrize("login", [published, ours])
def test_the_published_command_line_logs_in(
    login: Login, server: str, browser: list[str], tmp_path: Path
) -> None:
    files = {kind: tmp_path / kind for kind in ("client-id", "redirect-uri", "refresh-token")}
    named = [word for kind, file in files.items() for word in (f"--{kind}-file", str(file))]
    where = ["--authkit-domain", f"{server}/", "--resource", server, "--port", str(free_port())]
    assert login(*where, *named, "--json") == 0
    (page,) = browser
    assert page.startswith(f"{server}/authorize?")
    assert resource_of(page).startswith(server)
    assert all(file.read_text().strip() for file in files.values())
    again = [word for word in where if word != "--json"]
    assert login(*again, *named) == 0  # with the client of the first login


@pytest.mark.parametrize("login", [published, ours])
def test_without_its_authorization_server_there_is_no_page(
    login: Login, server: str, browser: list[str], tmp_path: Path
) -> None:
    where = ["--resource", server, "--authkit-domain", f"http://127.0.0.1:{free_port()}"]
    assert login(*where, "--port", str(free_port())) == 1
    assert not browser
    assert not (tmp_path / ".config/octogen/mcp.refresh").exists()


def test_what_is_different_is_told(golden: Golden, server: str, browser: list[str]) -> None:
    where = ["--resource", server, "--authkit-domain", "https://auth.octogen.ai", "--port", "0"]
    told = CliRunner().invoke(main, ["login", *where])
    assert told.exit_code == 1
    golden("errors", told.stderr)
    assert not browser
    where = ["--resource", server, "--mcp-url", "https://mcp.octogen.ai/mcp/"]
    told = CliRunner().invoke(main, ["login", *where])
    assert told.exit_code == 2
    told = CliRunner().invoke(main, ["login", "--authkit-domain", "auth.octogen.ai"])
    assert told.exit_code == 2


def test_a_server_that_names_no_login_is_not_told_as_another_login(
    golden: Golden, browser: list[str]
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
    server: str, browser: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_URL", "https://mcp.octogen.example/mcp/")
    told = CliRunner().invoke(main, ["login", "--resource", server, "--port", "0"])
    assert told.exit_code == 0
    assert f"export OCTOGEN_MCP_URL={server}/mcp/" in told.stdout.splitlines()
    assert f"export OCTOGEN_MCP_TOKEN_ENDPOINT={server}/token" in told.stdout.splitlines()
    assert len(browser) == 1


def test_each_goes_on_with_the_login_of_the_other(
    server: str, browser: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / ".config/octogen"
    names = {
        "client-id": mcp_auth.DEFAULT_CLIENT_ID_FILE.name,
        "redirect-uri": mcp_auth.DEFAULT_REDIRECT_URI_FILE.name,
        "refresh-token": mcp_auth.DEFAULT_REFRESH_TOKEN_FILE.name,
    }
    assert mcp_auth.DEFAULT_REFRESH_TOKEN_FILE.parts[-3:-1] == folder.parts[-2:]
    # The published one has known its home folder since it was imported.
    named = [word for kind, name in names.items() for word in (f"--{kind}-file", folder / name)]
    where = ["--authkit-domain", server, "--resource", f"{server}/mcp/", "--port", str(free_port())]
    theirs = [*where, *map(str, named)]
    clients = set()
    for login, arguments in ((published, theirs), (ours, where), (published, theirs)):
        assert login(*arguments) == 0
        assert {path.name for path in folder.glob("mcp.[cr]*") if path.suffix != ".lock"} == {
            *names.values()
        }
        clients.add((folder / names["client-id"]).read_text().strip())
        tokens = mcp_auth.MCPRefreshTokenProvider(
            client_id=(folder / names["client-id"]).read_text().strip(),
            refresh_token=None,
            refresh_token_file=folder / names["refresh-token"],
            token_endpoint=f"{server}/token",
        )
        assert tokens()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", f"{server}/token")
            resource = OctogenControlPlaneResource(principal=PRINCIPAL, url=f"{server}/mcp/")
            with resource.control_plane() as octogen:
                assert octogen.listings() == []
    assert len(clients) == 1
    scopes = {parse_qs(urlsplit(page).query)["scope"][0] for page in browser}
    assert scopes == {mcp_auth.DEFAULT_MCP_SCOPE}
