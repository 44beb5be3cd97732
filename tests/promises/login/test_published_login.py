"""`login` takes the options of the published `octogen-mcp-login`, and stores what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from octogen_ai_sdk import mcp_auth

from octogen_dagster.cli.main import main
from tests.servers.octogen_mcp import OctogenServer, parameters


def test_the_published_options_log_in(
    server: OctogenServer, browser: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in server.environment:
        monkeypatch.delenv(name)
    origin, folder = server.origin, tmp_path / ".config/octogen"
    where = ["--authkit-domain", f"{origin}/", "--resource", origin, "--port", "0"]
    done = CliRunner().invoke(main, ["login", *where])
    assert done.exit_code == 0, done.stderr
    (page,) = browser
    assert parameters(page)["resource"].startswith(origin)
    assert parameters(page)["scope"] == mcp_auth.DEFAULT_MCP_SCOPE
    published = (
        mcp_auth.DEFAULT_CLIENT_ID_FILE,
        mcp_auth.DEFAULT_REDIRECT_URI_FILE,
        mcp_auth.DEFAULT_REFRESH_TOKEN_FILE,
    )
    assert {file.parts[-3:-1] for file in published} == {folder.parts[-2:]}
    assert all((folder / file.name).read_text().strip() for file in published)
