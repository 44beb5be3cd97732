"""The console scripts: what they import, what `--debug` shows, and what a missing extra says."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import octogen_dagster as od
from octogen_dagster.cli.main import main
from octogen_dagster.errors import MissingPackageError, OctogenError
from tests.commands import COMMANDS

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTING = "projects/p/locations/us/dataExchanges/e/listings/l"


def test_each_script_is_a_command_of_its_own_or_a_subcommand() -> None:
    found = {}
    for name, target in PROJECT["scripts"].items():
        module, _, attribute = target.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    assert found == {
        "octogen-dagster": main,
        "octogen-bq-subscribe": COMMANDS["bq", "subscribe"],
        "octogen-bq-autosubscribe": COMMANDS["bq", "autosubscribe"],
    }


@pytest.mark.slow
def test_a_command_starts_without_the_heavy_libraries() -> None:
    dry_run = ["bq", "subscribe", "--listing", LISTING, "--project", "my-project"]
    calls = [["--help"], *([*words, "--help"] for words in COMMANDS), dry_run]
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
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_the_help_of_a_command_imports_no_other_command() -> None:
    program = """
import sys
from octogen_dagster.cli.main import main
main(["report", "--help"], standalone_mode=False)
folder = "octogen_dagster.cli.commands."
print([name for name in sys.modules if name.startswith(folder)], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stderr == "['octogen_dagster.cli.commands.report']\n"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_says_in_one_line_what_it_does(words: tuple[str, ...]) -> None:
    text = COMMANDS[words].get_short_help_str(limit=62)
    assert text.endswith(".")
    assert not text.endswith("...")


# `--debug` shows where an error of a command comes from, and never the key.


KEY = "octo_live_0123456789abcdef0123456789abcdef_c2VjcmV0LW9mLXRoZS1rZXk"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


DRY_RUN = ("bq", "subscribe", "--listing", LISTING, "--project", "mine", "--json")


def test_the_traceback_of_what_may_be_a_defect_is_one_option_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("json.dumps", lambda *_, **__: int("ten"))
    told = run(*DRY_RUN)
    said = "Error: invalid literal for int() with base 10: 'ten'"
    assert told.exit_code == 2
    line, hint = told.stderr.splitlines()
    assert line == said
    assert "--debug" in hint
    shown = run(*DRY_RUN, "--debug")
    assert shown.exit_code == 2
    assert "Traceback (most recent call last):" in shown.stderr
    assert f'"{__file__}", line' in shown.stderr
    assert shown.stderr.splitlines()[-1] == said


def test_bad_input_is_one_line_without_a_hint() -> None:
    told = run("estimate", "--catalog", "acme", "--facet", "gender")
    assert told.exit_code == 2
    (said,) = told.stderr.splitlines()
    assert said.startswith("Error: --facet 'gender' ")
    assert "--debug" not in said


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


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {("demo",)}), ids=" ".join)
def test_each_command_takes_it(command: tuple[str, ...]) -> None:
    assert "--debug" in run(*command, "--help").stdout


# The value of an option that is empty is a mistake, such as a variable that is not set.


def valued_parameters(words: tuple[str, ...]) -> list[click.Parameter]:
    """The arguments of a command, and its options that take a value."""
    return [each for each in COMMANDS[words].params if not getattr(each, "is_flag", False)]


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if valued_parameters(words)], ids=" ".join
)
def test_each_command_refuses_an_empty_value(words: tuple[str, ...]) -> None:
    for parameter in valued_parameters(words):
        name, ways = parameter.opts[0], [[""]]
        if isinstance(parameter, click.Option):
            ways = [[name, ""], [name, " "], [f"{name}="], [name, ","]]
        for arguments in ways:
            done = run(*words, *arguments)
            assert (done.exit_code, done.stdout) == (2, ""), arguments
            assert "is empty" in done.stderr
            told = done.stderr.replace(name.upper(), name)
            assert f"{name}'" in told or f"[{name}]'" in told


# A feature whose extra is not installed says what to install when definitions load.


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of packages that count as not installed, to add to."""
    names: set[str] = set()
    installed = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    return names


def test_each_package_of_an_extra_is_named_with_the_command_that_installs_it(
    missing: set[str],
) -> None:
    extras = PROJECT["optional-dependencies"]
    packages = [line.partition(">=")[0] for line in (*extras["bigquery"], *extras["mcp"])]
    missing.update(packages)
    with pytest.raises(ImportError) as caught:
        od.build_linked_datasets_asset(control_plane=True)
    assert str(caught.value) == (
        f"build_linked_datasets_asset needs {', '.join(packages)}. "
        'Add "octogen-dagster[bigquery,mcp]" to your project\'s dependencies.'
    )
    assert isinstance(caught.value, OctogenError)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (MissingPackageError, str(caught.value))


def test_features_of_bigquery_and_mcp_say_so_when_definitions_are_made(missing: set[str]) -> None:
    missing.add("mcp")
    od.build_linked_datasets_asset()
    od.ExchangeSource("projects/p/locations/us/dataExchanges/x")
    od.AnalyticsHubResource(project="my-project")
    hint = r'needs mcp. Add "octogen-dagster\[mcp\]" '
    with pytest.raises(MissingPackageError, match=hint):
        od.build_linked_datasets_asset(control_plane=True)
    with pytest.raises(MissingPackageError, match=hint):
        od.OctogenSource()
    with pytest.raises(MissingPackageError, match=hint):
        od.OctogenControlPlaneResource(principal="user:me@my.org")
    missing.add("pyarrow")
    hint = r'needs pyarrow. Add "octogen-dagster\[bigquery\]" '
    with pytest.raises(MissingPackageError, match=hint):
        od.build_linked_datasets_asset()
    with pytest.raises(MissingPackageError, match=hint):
        od.AnalyticsHubResource(project="my-project")
