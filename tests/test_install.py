"""What is installed, and from what: projects of `create-dagster`, a clone, a page of an index."""

from __future__ import annotations

import re
import subprocess
import tomllib
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.dg_project import DgProject

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.world, pytest.mark.timeout(300)]

FEATURES = """
from octogen_dagster import *

assets = build_products_asset("products")
features = [
    lambda: build_linked_products_asset(assets),
    lambda: OctogenControlPlaneResource(principal="user:me@my.org"),
    lambda: __import__("octogen_dagster.sandbox.server"),
]
for feature in features:
    try:
        feature()
    except ImportError as error:
        print(error)
ParquetSnapshotIOManager(base_dir="snapshots")
"""
BUCKET = """
import dagster as dg
from octogen_dagster import ParquetSnapshotIOManager

defs = dg.Definitions(resources={"io_manager": ParquetSnapshotIOManager(base_dir="gs://bucket")})
"""
HINTS = [
    "build_linked_products_asset needs google-cloud-bigquery-analyticshub, "
    "google-cloud-bigquery-storage, google-cloud-bigquery, pyarrow. "
    'Add "octogen-dagster[bigquery]" to your project\'s dependencies.',
    'OctogenControlPlaneResource needs mcp. Add "octogen-dagster[mcp]" to your project\'s '
    "dependencies.",
    'the sandbox needs uvicorn. Add "octogen-dagster[sandbox]" to your project\'s dependencies.',
]


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
    assert not packages & {"pandas", "pyarrow", "dagster-gcp", "mcp", "uvicorn"}
    assert project.run("uv", "run", "--no-dev", "python", "-c", FEATURES).splitlines() == HINTS
    (project.root / "src/my_project/defs/snapshots.py").write_text(BUCKET)
    assert "All definitions loaded successfully" in project.run("uv", "run", "dg", "check", "defs")

    # All extras together fit into it.
    project.run("uv", "add", "--no-sync", f"{wheel}[bigquery,mcp,sandbox,ui]")
    locked = tomllib.loads((project.root / "uv.lock").read_text())
    packages = {package["name"] for package in locked["package"]}
    assert packages >= {"google-cloud-bigquery", "mcp", "uvicorn", "dagster-webserver"}


def resolved_for_an_intel_mac(*options: str) -> dict[str, str]:
    """The packages, with versions, that a clone installs on a Mac with an Intel processor."""
    command = ["uv", "pip", "compile", "-q", "pyproject.toml", "--no-header", "--no-annotate"]
    platform = ["--python-platform", "x86_64-apple-darwin", "--python-version", "3.12"]
    lines = subprocess.check_output([*command, *platform, *options], cwd=ROOT, text=True)
    return dict(line.split("==") for line in lines.splitlines() if "==" in line)


def test_a_clone_has_no_cryptography_that_intel_macs_lack() -> None:
    assert "cryptography" not in resolved_for_an_intel_mac("--extra", "sandbox", "--extra", "ui")
    version = resolved_for_an_intel_mac("--group", "dev")["cryptography"]
    assert int(version.partition(".")[0]) < 49


def metadata_of(wheel: Path) -> Message:
    """What a package index knows about the wheel."""
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_package_does_not_cap_the_python_of_a_project(wheel: Path) -> None:
    assert metadata_of(wheel)["Requires-Python"] == ">=3.11"


def test_the_page_of_an_index_has_no_link_into_the_clone(wheel: Path) -> None:
    page = metadata_of(wheel).get_payload()
    assert isinstance(page, str)
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 20
    assert [link for link in links if not link.startswith("https://")] == []
