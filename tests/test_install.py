"""The wheel is added to a project that `create-dagster` made and nobody edited."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.dg_project import DgProject

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PYTHONS = ">=3.10,<3.15"


def installed(project: DgProject) -> set[str]:
    """The names of the packages in the project's environment."""
    lines = project.run("uv", "pip", "list", "-q", "--format", "freeze").splitlines()
    return {line.partition("==")[0].partition(" @ ")[0] for line in lines}


def test_a_project_has_neither_google_nor_pandas_without_extras(
    tmp_path: Path, wheel: Path
) -> None:
    project = DgProject.create(tmp_path)
    project.run("uv", "add", str(wheel))
    packages = installed(project)
    assert "octogen-dagster" in packages
    assert not {package for package in packages if package.startswith("google")}
    assert not packages & {"pandas", "pyarrow", "dagster-gcp", "mcp", "gcsfs", "s3fs", "uvicorn"}
    assert "All definitions loaded successfully" in project.run("uv", "run", "dg", "check", "defs")
    locked = tomllib.loads((project.root / "uv.lock").read_text())
    assert locked["requires-python"] == PYTHONS.replace(",", ", ")


def test_all_extras_together_fit_into_a_project(tmp_path: Path, wheel: Path) -> None:
    project = DgProject.create(tmp_path)
    project.run("uv", "add", "--no-sync", f"{wheel}[bigquery,mcp,gcs,s3,sandbox,ui]")
    locked = tomllib.loads((project.root / "uv.lock").read_text())
    packages = {package["name"] for package in locked["package"]}
    assert packages >= {"dagster-gcp", "mcp", "gcsfs", "s3fs", "uvicorn", "dagster-webserver"}
