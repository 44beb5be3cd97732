"""The console scripts of the package, and what a command imports when it starts."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
import tomli

from octogen_dagster.cli.main import main

ROOT = Path(__file__).parents[2]
SCRIPTS: dict[str, str] = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
LISTING = "projects/p/locations/us/dataExchanges/e/listings/l"


def subcommands(command: click.Command, *words: str) -> list[tuple[str, ...]]:
    """The words of every subcommand, as ("bq", "subscribe")."""
    if not isinstance(command, click.Group):
        return [words]
    return [
        each
        for name, inner in command.commands.items()
        for each in subcommands(inner, *words, name)
    ]


def test_each_script_is_a_command_of_its_own_or_a_subcommand() -> None:
    found = {}
    for name, target in SCRIPTS.items():
        module, _, attribute = target.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    bq = main.commands["bq"]
    assert isinstance(bq, click.Group)
    assert found == {
        "octogen-dagster": main,
        "octogen-bq-subscribe": bq.commands["subscribe"],
        "octogen-bq-autosubscribe": bq.commands["autosubscribe"],
        "octogen-mcp-login": main.commands["login"],
    }


def test_a_command_starts_without_the_heavy_libraries() -> None:
    dry_run = ["bq", "subscribe", "--listing", LISTING, "--project", "my-project"]
    calls = [["--help"], *([*words, "--help"] for words in subcommands(main)), dry_run]
    program = f"""
import sys
from octogen_dagster.cli.main import main
heavy = {{"dagster", "polars", "google.cloud", "httpx", "httpx2", "mcp", "pydantic", "tenacity"}}
for call in {calls!r}:
    try:
        main(call)
    except SystemExit as end:
        assert end.code == 0, call
    assert not heavy & set(sys.modules), (call, heavy & set(sys.modules))
from octogen_dagster.sandbox.server import Sandbox
with Sandbox(catalogs=1):
    pass
assert not {{"dagster", "polars", "google.cloud"}} & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("words", [(), ("bq",), *subcommands(main)], ids=" ".join)
def test_a_command_says_in_one_line_what_it_does(words: tuple[str, ...]) -> None:
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.get_short_help_str(limit=62).endswith(".")
    assert not command.get_short_help_str(limit=62).endswith("...")
