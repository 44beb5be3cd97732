"""Our commands take each option of the published ones, from the same variables, in their order.

Where ours differ on purpose, the reason stands here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.api.clients import QUICK
from tests.commands import COMMANDS
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, PROJECT

PUBLISHED = importlib.metadata.distribution("octogen-ai-sdk").entry_points
OURS = {
    "octogen-bq-subscribe": COMMANDS["bq", "subscribe"],
    "octogen-bq-autosubscribe": COMMANDS["bq", "autosubscribe"],
    "octogen-mcp-login": COMMANDS["login",],
}
# Ours asks the MCP server for both unless they are given, and it must name the authorization server
# that is given: an address that was typed wrong cannot receive a code or a token.
ASKED_FOR = {"--authkit-domain", "--resource"}
READER = ["--project", PROJECT, "--principal", PRINCIPAL]


class Variable(str):
    """The name of a variable of the environment, in place of its value."""


class Captured(Exception):
    """The parser of a published command, instead of its run."""


def published_options(name: str, monkeypatch: pytest.MonkeyPatch) -> list[argparse.Action]:
    """The options that a published command parses, without --help."""

    def capture(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise Captured(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", capture)
    with pytest.raises(Captured) as caught:
        PUBLISHED[name].load()([])
    parser: argparse.ArgumentParser = caught.value.args[0]
    return [action for action in parser._actions if action.dest != "help"]


def our_option(name: str, option: str) -> click.Option | None:
    for parameter in OURS[name].params:
        if option in (*parameter.opts, *parameter.secondary_opts):
            assert isinstance(parameter, click.Option)
            return parameter
    return None


@pytest.fixture(params=OURS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_published_option_is_taken_in_the_same_form(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action in published_options(name, monkeypatch):
        for option in action.option_strings:
            ours = our_option(name, option)
            assert ours is not None, f"{name} does not take {option}"
            assert ours.is_flag == (action.nargs == 0), option
            assert ours.required == action.required, option
            assert ours.multiple == isinstance(action, argparse._AppendAction), option


def test_each_option_has_the_same_variable_or_default(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getenv", lambda variable, default=None: Variable(variable))
    for action in published_options(name, monkeypatch):
        ours = our_option(name, action.option_strings[0])
        assert ours is not None
        theirs = str(action.default) if isinstance(action.default, Variable) else None
        assert ours.envvar == theirs, action.option_strings
        if ASKED_FOR & set(action.option_strings):
            assert ours.to_info_dict()["default"] is None
        elif theirs is None and not ours.multiple:
            default = ours.to_info_dict()["default"]
            assert default == action.default, action.option_strings


@pytest.fixture(scope="module")
def octogen() -> Iterator[Octogen]:
    """Octogen's MCP and its login, which no test here changes."""
    with Octogen() as server:
        server.rotates = False
        yield server


class Logins:
    """Settings of logins: those that Octogen accepts, and others.

    Args:
        octogen: The server of the login.
        folder: A folder for files.
    """

    def __init__(self, octogen: Octogen, folder: Path) -> None:
        self._values = {
            "right": self._settings(
                folder / "right", CLIENT, octogen.refresh_token, octogen.access_token
            ),
            "wrong": self._settings(folder / "wrong", "client", "refresh", "access"),
            "empty": {"REFRESH_TOKEN_FILE": f"{folder}/empty"},
            "missing": {"REFRESH_TOKEN_FILE": f"{folder}/missing"},
        }
        (folder / "empty").touch()

    @staticmethod
    def _settings(folder: Path, client_id: str, refresh: str, access: str) -> dict[str, str]:
        folder.mkdir()
        (folder / "client").write_text(f"{client_id}\n")
        (folder / "refresh").write_text(f"{refresh}\n")
        (folder / "print").write_text(f"echo {access}\necho It is valid for five minutes.\n")
        return {
            "CLIENT_ID": client_id,
            "CLIENT_ID_FILE": f"{folder}/client",
            "REFRESH_TOKEN": refresh,
            "REFRESH_TOKEN_FILE": f"{folder}/refresh",
            "ACCESS_TOKEN": access,
            "TOKEN_COMMAND": f"sh {folder}/print",
        }

    def value(self, kind: str, name: str) -> str:
        """Return the value of one setting, as ("right", "CLIENT_ID")."""
        return self._values[kind][name]


@pytest.fixture
def logins(octogen: Octogen, tmp_path: Path) -> Logins:
    return Logins(octogen, tmp_path)


@pytest.fixture
def statuses(
    octogen: Octogen, logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, int]]:
    """A function that makes a dry run of the published autosubscribe and of ours.

    It takes arguments and the settings of the environment by their kind, and returns the two exit
    statuses.
    """

    def run(*arguments: str, **environment: str) -> tuple[int, int]:
        name = "octogen-bq-autosubscribe"
        monkeypatch.setenv("OCTOGEN_MCP_URL", octogen.mcp_url)
        monkeypatch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", octogen.token_endpoint)
        for setting, kind in environment.items():
            monkeypatch.setenv(f"OCTOGEN_MCP_{setting}", logins.value(kind, setting))
        try:
            theirs: int = PUBLISHED[name].load()([*arguments])
        except SystemExit as end:
            theirs = int(end.code or 0)
        return theirs, CliRunner().invoke(OURS[name], arguments, obj=QUICK).exit_code

    return run


@pytest.mark.parametrize(
    ("status", "environment"),
    [
        (0, {"TOKEN_COMMAND": "right"}),
        (0, {"TOKEN_COMMAND": "right", "REFRESH_TOKEN": "wrong", "ACCESS_TOKEN": "wrong"}),
        (1, {"TOKEN_COMMAND": "wrong", "ACCESS_TOKEN": "right"}),
        (0, {"REFRESH_TOKEN_FILE": "right", "REFRESH_TOKEN": "wrong", "CLIENT_ID": "right"}),
        (1, {"REFRESH_TOKEN_FILE": "wrong", "REFRESH_TOKEN": "right", "CLIENT_ID": "right"}),
        (0, {"REFRESH_TOKEN_FILE": "empty", "REFRESH_TOKEN": "right", "CLIENT_ID": "right"}),
        (1, {"REFRESH_TOKEN_FILE": "empty", "CLIENT_ID": "right"}),
        (1, {"REFRESH_TOKEN_FILE": "missing", "REFRESH_TOKEN": "right", "CLIENT_ID": "right"}),
        (0, {"REFRESH_TOKEN": "right", "CLIENT_ID": "right", "CLIENT_ID_FILE": "wrong"}),
        (1, {"REFRESH_TOKEN": "right", "CLIENT_ID": "wrong", "CLIENT_ID_FILE": "right"}),
        (0, {"REFRESH_TOKEN": "right", "CLIENT_ID_FILE": "right"}),
        (1, {"REFRESH_TOKEN": "right"}),
        (0, {"REFRESH_TOKEN": "right", "CLIENT_ID": "right", "ACCESS_TOKEN": "wrong"}),
        (1, {"REFRESH_TOKEN": "wrong", "CLIENT_ID": "right", "ACCESS_TOKEN": "right"}),
        (0, {"ACCESS_TOKEN": "right"}),
        (1, {}),
    ],
    ids=str,
)
def test_of_several_logins_the_same_one_is_used(
    statuses: Callable[..., tuple[int, int]], status: int, environment: dict[str, str]
) -> None:
    assert statuses(*READER, **environment) == (status, status)


def test_the_names_of_a_subscriber_are_synonyms(statuses: Callable[..., tuple[int, int]]) -> None:
    reader = ["--subscriber-project-id", PROJECT, "--subscriber-principal", PRINCIPAL]
    assert statuses(*reader, ACCESS_TOKEN="right") == (0, 0)


# The tests below show where the two differ; each docstring says why.


def test_a_login_on_the_command_line_wins_over_the_environment(
    statuses: Callable[..., tuple[int, int]], logins: Logins
) -> None:
    """The published one runs the command of the environment. What is typed is what is meant."""
    typed = ["--mcp-access-token", logins.value("right", "ACCESS_TOKEN")]
    assert statuses(*READER, *typed, TOKEN_COMMAND="wrong") == (1, 0)


def test_an_option_is_written_out(statuses: Callable[..., tuple[int, int]]) -> None:
    """The published one takes `--princ`. A beginning means another option after an update."""
    assert statuses(*READER[:2], "--princ", PRINCIPAL, ACCESS_TOKEN="right") == (0, 2)


def test_a_wrong_argument_has_the_status_of_bad_input(
    statuses: Callable[..., tuple[int, int]],
) -> None:
    """The published one ends with 1, and only with 2 if it cannot parse an option.

    Whoever repeats the command needs to know that repeating it does not help.
    """
    assert statuses(*READER, "--mcp-token-command", "'") == (1, 2)
