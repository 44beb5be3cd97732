"""`--debug` shows where an error of a command comes from, and never the key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main

KEY = "octo_live_0123456789abcdef0123456789abcdef_c2VjcmV0LW9mLXRoZS1rZXk"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    """A file of the user that fails with a ValueError of Python's."""
    file = tmp_path / "broken_definitions.py"
    file.write_text('retries = int("ten")\n')
    return file


def test_the_traceback_of_what_may_be_a_defect_is_one_option_away(definitions: Path) -> None:
    told = run("doctor", "-f", str(definitions))
    said = "Error: invalid literal for int() with base 10: 'ten'"
    hint = "If your input is right, this is a defect: add --debug to see its traceback."
    assert (told.exit_code, told.stderr.splitlines()) == (2, [said, hint])
    shown = run("doctor", "-f", str(definitions), "--debug")
    first, *lines, last = shown.stderr.splitlines()
    assert (shown.exit_code, first, last) == (2, "Traceback (most recent call last):", said)
    assert any(f'"{definitions}", line 1' in line for line in lines)


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


def test_the_key_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
    file = tmp_path / "telling.py"
    file.write_text(
        "import os\n"
        'key = os.environ["OCTOGEN_PLATFORM_API_KEY"]\n'
        "try:\n"
        "    int(key)\n"
        "except ValueError as error:\n"
        '    raise ValueError(f"The key {key} is no number") from error\n'
    )
    for options in ((), ("--debug",)):
        shown = run("doctor", "-f", str(file), *options)
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
