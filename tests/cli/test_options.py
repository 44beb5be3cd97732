from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from octogen_dagster.cli.options import (
    FILE,
    SECONDS,
    access_token_settings,
    mcp_option,
    mcp_url_option,
)


@click.command()
@mcp_url_option()
@mcp_option("--mcp-token-command", "")
@mcp_option("--mcp-refresh-token", "")
@mcp_option("--mcp-refresh-token-file", "", type=FILE)
@mcp_option("--mcp-access-token", "")
@mcp_option("--mcp-client-id", "")
@mcp_option("--mcp-client-id-file", "", type=FILE)
@mcp_option("--mcp-token-endpoint", "")
@click.option("--timeout", type=SECONDS)
def command(mcp_url: str | None, timeout: float | None, **options: Any) -> None:
    settings = {key: value for key, value in access_token_settings(options).items() if value}
    click.echo(json.dumps({"url": mcp_url, **settings}, default=str))


def settings(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(command, arguments, env=environment)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "OCTOGEN_MCP_URL": "https://mcp.example/",
        "OCTOGEN_MCP_TOKEN_COMMAND": "print-token",
        "OCTOGEN_MCP_REFRESH_TOKEN_FILE": "refresh",
        "OCTOGEN_MCP_CLIENT_ID_FILE": "client",
        "OCTOGEN_MCP_TOKEN_ENDPOINT": "https://auth.example/",
    }


def test_options_are_read_from_the_environment(environment: dict[str, str]) -> None:
    assert settings(environment) == {
        "url": "https://mcp.example/",
        "token_command": "print-token",
        "refresh_token_file": "refresh",
        "client_id_file": "client",
        "token_endpoint": "https://auth.example/",
    }


def test_a_login_on_the_command_line_replaces_those_of_the_environment(
    environment: dict[str, str],
) -> None:
    found = settings(environment, "--mcp-access-token", "access")
    assert found == {
        "url": "https://mcp.example/",
        "access_token": "access",
        "client_id_file": "client",
        "token_endpoint": "https://auth.example/",
    }


def test_a_client_id_on_the_command_line_replaces_that_of_the_environment(
    environment: dict[str, str],
) -> None:
    found = settings(environment, "--mcp-client-id", "mine")
    assert found["client_id"] == "mine"
    assert "client_id_file" not in found
    assert found["token_command"] == "print-token"


def test_a_refresh_token_file_on_the_command_line_may_begin_with_the_token_of_the_environment(
    environment: dict[str, str],
) -> None:
    found = settings(
        environment | {"OCTOGEN_MCP_REFRESH_TOKEN": "first"}, "--mcp-refresh-token-file", "mine"
    )
    assert (found["refresh_token"], found["refresh_token_file"]) == ("first", "mine")
    assert "token_command" not in found


def test_a_refresh_token_on_the_command_line_replaces_the_file_of_the_environment(
    environment: dict[str, str],
) -> None:
    found = settings(environment, "--mcp-refresh-token", "mine")
    assert found["refresh_token"] == "mine"
    assert "refresh_token_file" not in found
    assert found["client_id_file"] == "client"


def test_an_empty_text_on_the_command_line_replaces_nothing(environment: dict[str, str]) -> None:
    assert settings(environment, "--mcp-access-token", "") == settings(environment)


def test_several_logins_on_the_command_line_are_all_kept() -> None:
    found = settings({}, "--mcp-access-token", "access", "--mcp-refresh-token", "refresh")
    assert found == {"url": None, "access_token": "access", "refresh_token": "refresh"}


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
def test_seconds_are_above_zero(seconds: str) -> None:
    assert CliRunner().invoke(command, ["--timeout", seconds]).exit_code == 2
