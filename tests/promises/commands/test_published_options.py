"""Our commands take each option of the published ones, from the same variables."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
from typing import Any

import click
import pytest

from tests.commands import COMMANDS

PUBLISHED = importlib.metadata.distribution("octogen-ai-sdk").entry_points
OURS = {
    "octogen-bq-subscribe": COMMANDS["bq", "subscribe"],
    "octogen-bq-autosubscribe": COMMANDS["bq", "autosubscribe"],
    "octogen-mcp-login": COMMANDS["login",],
}
# Ours asks the MCP server for both unless they are given, and it must name the authorization server
# that is given: an address that was typed wrong cannot receive a code or a token.
ASKED_FOR = {"--authkit-domain", "--resource"}


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
