"""examples/python_project loads and runs, with its own tests and by `dg`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox

EXAMPLE = Path(__file__).parents[2] / "examples/python_project"
DG = Path(sys.executable).with_name("dg")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project."""
    copy = tmp_path / "python_project"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "snapshots"))
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return copy


def run(project: Path, *command: str | Path, **variables: str) -> str:
    places = {
        "PYTHONPATH": str(project / "src"),
        "DAGSTER_HOME": str(project.parent),
        "DG_CLI_CONFIG": str(project.parent / "dg.toml"),
    }
    done = subprocess.run(
        command,
        cwd=project,
        env={**os.environ, **places, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.world
def test_the_tests_of_the_project_pass(project: Path) -> None:
    done = run(project, sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests")
    assert "1 passed" in done


@pytest.mark.world
@pytest.mark.timeout(300)
def test_dg_launches_it(project: Path) -> None:
    with Sandbox(catalogs={"northpeak": 200}) as sandbox:
        run(project, DG, "launch", "--assets", "jackets", **sandbox.environment)
    assert len(pl.read_parquet(project / "snapshots/jackets.parquet")) > 0


@pytest.mark.world
@pytest.mark.parametrize("name", ["python_project", "yaml_project"])
def test_uv_takes_this_package_from_the_clone(name: str) -> None:
    done = run(EXAMPLE.parent / name, "uv", "lock", "--dry-run")
    assert "Add octogen-dagster" in done
