from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY, RawServer
from tests.doctor.test_octogen_api import today


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["doctor", *arguments])
    assert KEY not in result.output
    return result


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
    return monkeypatch


def serve(server: RawServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OCTOGEN_BASE_URL", server.base_url)


def test_what_works_is_told_line_by_line(connect: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with today() as server:
        serve(server, connect)
        result = run("--shop", "acme.example", "--base-dir", str(tmp_path))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "ok       Octogen catalogs: ShopCatalogs finds 1, with 250 products in all." in lines
    assert any(line.startswith("ok       Snapshots: a file was written") for line in lines)


def test_what_does_not_work_ends_with_1_in_json_too(connect: pytest.MonkeyPatch) -> None:
    with today({"detail": "Invalid API key"}, 401) as server:
        serve(server, connect)
        result = run("--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["ok"] is False
    assert [each["subject"] for each in said["findings"] if each["status"] == "failed"] == [
        "Octogen"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shop", " / "], "hosts has"),
        (["--listing", "acme"], "'acme' is not the name of a listing"),
        (["--project", "my project"], "Project 'my project' is invalid"),
        (["--attribute", "defs"], "--attribute needs --module-name or --python-file"),
    ],
)
def test_bad_input_ends_with_2(
    arguments: list[str], said: str, connect: pytest.MonkeyPatch
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_sandbox_with_its_hub_works_as_the_readme_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(catalogs=2, products=5, hub=True) as sandbox:
        resource = sandbox.hub.share("northpeak")
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        arguments = ["--project=my-project", "--principal=user:me@my.example"]
        result = run(*arguments, f"--exchange={sandbox.hub.exchange}", f"--listing={resource}")
        changes = {"SubscribeListing", "register_bigquery_subscriber"}
        assert not changes & {call.method for call in sandbox.hub.calls}
        assert sandbox.charged_usd == 0
    assert result.exit_code == 0
    for line in (
        "ok       MCP role: the login may manage subscribers.",
        f"ok       Exchange: catalogs in {sandbox.hub.exchange}: 1.",
        f"ok       Listings: free to subscribe to 1: {resource}.",
        "skipped  Queries: there is no resource `bigquery` to check.",
    ):
        assert line in result.stdout.splitlines()
    assert not [
        secret for secret in (sandbox.hub.refresh_token, sandbox.api_key) if secret in result.output
    ]


DEFINITIONS = """
import dagster as dg
from octogen_dagster import NamedCatalogs, OctogenResource, ParquetSnapshotIOManager

@dg.definitions
def lazy() -> dg.Definitions:
    return defs

@dg.asset
def nothing() -> None: ...

defs = dg.Definitions(
    assets=[nothing],
    resources={
        "octogen": OctogenResource(
            api_key=dg.EnvVar("MY_KEY"),
            base_url=dg.EnvVar("MY_OCTOGEN"),
            catalogs=NamedCatalogs(["acme"]),
        ),
        "snapshots": ParquetSnapshotIOManager(base_dir=dg.EnvVar("MY_SNAPSHOTS")),
        "database": object(),
    },
)
"""


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with Definitions, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MY_SNAPSHOTS", str(tmp_path / "snapshots"))
    file = tmp_path / "doctored.py"
    file.write_text(DEFINITIONS)
    yield file
    sys.modules.pop("doctored", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-f", "doctored.py", "-a", "defs"],
        ["-m", "doctored", "-a", "lazy"],
    ],
)
def test_the_resources_of_definitions_are_checked(
    arguments: list[str], definitions: Path, connect: pytest.MonkeyPatch
) -> None:
    connect.setenv("MY_KEY", KEY)
    with today() as server:
        connect.setenv("MY_OCTOGEN", server.base_url)
        result = run(*arguments)
    assert result.exit_code == 0
    assert f"{server.base_url} accepts the key (api_key of the resource)" in result.stdout
    assert "renamed, read back and deleted" in result.stdout


def test_a_variable_of_a_resource_that_is_not_set(definitions: Path) -> None:
    result = run("-f", "doctored.py", "-a", "defs")
    assert result.exit_code == 1
    assert (
        "failed   Octogen: OctogenResource takes api_key from the environment variable MY_KEY, "
        "which is not set" in result.stdout
    )
    assert "ok       Snapshots" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "doctored.nowhere"], "Module 'doctored.nowhere' does not exist here."),
        (["-f", "doctored.py"], "doctored has lazy and defs Definitions: name those to check"),
        (["-f", "doctored.py", "-a", "nothing"], "'nothing' of doctored is not Definitions"),
        (["-f", "notes.txt"], "notes.txt is not a Python file"),
        (["-f", "doctored.py", "-m", "doctored"], "--module-name and --python-file exclude"),
        (["-f", "doctored.py", "--shop", "a.example"], "--shop has no effect beside --module-name"),
        (["-f", "doctored.py", "--base-dir", "x"], "--base-dir has no effect beside"),
    ],
)
def test_definitions_that_cannot_be_found(
    arguments: list[str], said: str, definitions: Path
) -> None:
    (definitions.parent / "notes.txt").touch()
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
