"""The README's commands run against a sandbox as they are written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line for block in BLOCKS for line in block.splitlines() if line.startswith("octogen-dagster ")
]
NOT_RUN = {"demo", "doctor", "sandbox"}
"""Commands that run until they are stopped or need definitions and a bucket: their options are
parsed only."""


def arguments(line: str, sandbox: Sandbox) -> list[str]:
    """The arguments of a command, with real names for the README's examples."""
    examples = {
        "acme.com": sandbox.hosts[0],
        "serviceAccount:…": "serviceAccount:reader@my-project.iam.gserviceaccount.com",
        "projects/…/listings/…": sandbox.hub.listing_resource("acme"),
    }
    return [examples.get(word, word) for word in shlex.split(line, comments=True)[1:]]


def test_the_readme_shows_commands() -> None:
    assert {line.split()[1] for line in COMMANDS} >= {"bq", "estimate", "sandbox"}


def test_each_command_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(catalogs=["acme"], products=1, generation="current", hub=True) as sandbox:
        sandbox.hub.share("acme")
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        for line in COMMANDS:
            name, *rest = arguments(line, sandbox)
            if name in NOT_RUN:
                main.commands[name].make_context(name, rest)
                continue
            done = CliRunner().invoke(main, [name, *rest])
            assert (done.exit_code, done.stderr) == (0, ""), line
