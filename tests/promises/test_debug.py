"""`--debug` shows where an error of a command comes from, and never the key."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main

KEY = "octo_live_0123456789abcdef0123456789abcdef_c2VjcmV0LW9mLXRoZS1rZXk"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


LISTING = "projects/p/locations/us/dataExchanges/e/listings/l"
DRY_RUN = ("bq", "subscribe", "--listing", LISTING, "--project", "mine", "--json")


def test_the_traceback_of_what_may_be_a_defect_is_one_option_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("json.dumps", lambda *_, **__: int("ten"))
    told = run(*DRY_RUN)
    said = "Error: invalid literal for int() with base 10: 'ten'"
    hint = "If your input is right, this is a defect: add --debug to see its traceback."
    assert (told.exit_code, told.stderr.splitlines()) == (2, [said, hint])
    shown = run(*DRY_RUN, "--debug")
    assert shown.exit_code == 2
    assert "Traceback (most recent call last):" in shown.stderr
    assert f'"{__file__}", line' in shown.stderr
    assert shown.stderr.splitlines()[-1] == said


def test_bad_input_is_one_line_without_a_hint() -> None:
    told = run("estimate", "--catalog", "acme", "--facet", "gender")
    said = "Error: --facet 'gender' has no name and value: write it as gender=female"
    assert (told.exit_code, told.stderr.splitlines()) == (2, [said])


def test_an_error_of_the_package_has_a_traceback_too() -> None:
    told = run("estimate", "--catalog", "acme")
    shown = run("estimate", "--catalog", "acme", "--debug")
    assert told.exit_code == shown.exit_code == 1
    assert len(told.stderr.splitlines()) == 1
    assert shown.stderr.startswith("Traceback (most recent call last):")
    assert shown.stderr.endswith(told.stderr)


def test_the_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*_: object, **__: object) -> None:
        key = os.environ["OCTOGEN_PLATFORM_API_KEY"]
        try:
            int(key)
        except ValueError as error:
            raise ValueError(f"The key {key} is no number") from error

    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
    monkeypatch.setattr("json.dumps", tell)
    for options in ((), ("--debug",)):
        shown = run(*DRY_RUN, *options)
        assert shown.exit_code == 2
        assert "is no number" in shown.stderr
        assert KEY not in shown.output
        assert KEY.rpartition("_")[2] not in shown.output


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("command", sorted(set(commands(main)) - {("demo",)}), ids=" ".join)
def test_each_command_takes_it(command: tuple[str, ...]) -> None:
    assert "--debug" in run(*command, "--help").stdout
