"""The README's five commands make a snapshot, in a project that nobody edited."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from tests.dg_project import ROOT, DgProject

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COMMANDS = re.compile(r"^```sh\n(uvx create-dagster .*?)^```$", re.DOTALL | re.MULTILINE)
RUNNER = "set -eu\ntrap 'kill $(jobs -p); wait' EXIT\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> DgProject:
    """The project that the commands made, with the wheel in place of the published package."""
    folder = tmp_path_factory.mktemp("five-commands")
    home = folder / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    constraints = folder / "constraints.txt"
    constraints.write_text(f"create-dagster=={importlib.metadata.version('dagster')}\n")
    found = COMMANDS.search((ROOT / "README.md").read_text())
    assert found
    commands = found[1]
    assert len(commands.splitlines()) == 5
    with FileLock(wheel.with_name("port-of-the-sandbox.lock")):
        DgProject(folder, home).run(
            "bash",
            "-c",
            RUNNER + commands,
            UV_CONSTRAINT=str(constraints),
            UV_FIND_LINKS=str(wheel.parent),
        )
    return DgProject(folder / "my_shops", home)


def test_the_snapshot_is_there(project: DgProject) -> None:
    boots = pl.read_parquet(project.root / "snapshots" / "boots.parquet")
    assert boots.height == 50  # all of five shops, read as one page of up to 100
    assert boots["uuid"].is_unique().all()


def test_dg_finds_the_component(project: DgProject) -> None:
    listed = project.run("uv", "run", "dg", "list", "components")
    assert "octogen_dagster.components.OctogenComponent" in listed


def test_dg_lists_the_definitions(project: DgProject) -> None:
    listed = project.run("uv", "run", "dg", "list", "defs")
    assert all(name in listed for name in ("boots", "octogen_products", "octogen_catalogs"))


def test_dg_checks_the_scaffolded_project(project: DgProject) -> None:
    checked = project.run("uv", "run", "dg", "check", "defs")
    assert "All component YAML validated successfully." in checked
    assert "All definitions loaded successfully." in checked


def test_a_folder_that_exists_is_not_scaffolded_again(project: DgProject) -> None:
    yaml = project.root / "src/my_shops/defs/octogen/defs.yaml"
    before = yaml.read_text()
    command = ("uv", "run", "dg", "scaffold", "defs", "OctogenComponent", "octogen")
    told = project.run(*command, "--hosts", "acme.com", succeeds=False)
    assert "already exists" in told
    assert yaml.read_text() == before


def test_options_that_do_not_fit_leave_nothing(project: DgProject) -> None:
    command = ("uv", "run", "dg", "scaffold", "defs", "OctogenComponent", "shops")
    told = project.run(*command, "--hosts", "a.com", "--keys", "a", succeeds=False)
    assert "--hosts and --keys exclude each other: choose one source of catalogs" in told
    assert not (project.root / "src/my_shops/defs/shops").exists()


def test_a_mistake_is_told_by_dg_check_defs(project: DgProject) -> None:
    yaml = project.root / "src/my_shops/defs/octogen/defs.yaml"
    before = yaml.read_text()
    try:
        yaml.write_text(before.replace("partitions: catalog", "partitions: catalogs"))
        in_form = project.run("uv", "run", "dg", "check", "defs", succeeds=False)
        yaml.write_text(before.replace("name: boots", "name: octogen_products"))
        in_content = project.run("uv", "run", "dg", "check", "defs", succeeds=False)
        listed = project.run("uv", "run", "dg", "list", "defs", succeeds=False)
    finally:
        yaml.write_text(before)
    line = before.splitlines().index("      partitions: catalog") + 1
    assert f"{yaml}:{line} - " in in_form
    assert "'catalogs' is not one of ['none', 'catalog', 'day', 'catalog_day']" in in_form
    second = before.splitlines().index("    - name: boots") + 1
    for told in (in_content, listed):
        assert "'octogen_products' is also the name of searches[0]" in told
        assert f"{yaml}:{second} - attributes.searches[1].name" in told
