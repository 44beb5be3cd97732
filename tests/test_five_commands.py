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


def test_dg_checks_and_lists_the_scaffolded_project(project: DgProject) -> None:
    assert "All definitions loaded successfully." in project.run("uv", "run", "dg", "check", "defs")
    listed = project.run("uv", "run", "dg", "list", "defs")
    assert all(name in listed for name in ("boots", "octogen_products", "octogen_catalogs"))
