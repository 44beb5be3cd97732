"""A release is what anybody builds again from its commit, and says what it needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github/workflows/release.yml"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def released(folder: Path, umask: int, zone: str, constraints: str = "") -> Path:
    """Build a clone as the workflow does, and return the folder with what it would publish.

    `constraints` are those of the clone, if it has others.
    """
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["build"]["steps"]
    (build,) = [step["run"] for step in steps if "uv build" in step.get("run", "")]
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True, umask=umask)
    if constraints:
        (folder / "constraints.txt").write_text(constraints)
    subprocess.run(
        ["bash", "-euc", build],
        cwd=folder,
        env={**os.environ, "TZ": zone},
        umask=umask,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("first") / "clone", 0o022, "UTC")


def test_two_builds_of_a_commit_are_the_same_bytes(first: Path, tmp_path: Path) -> None:
    again = released(tmp_path / "elsewhere", 0o077, "Pacific/Auckland")
    digests = [
        {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.glob("oct*")}
        for folder in (first, again)
    ]
    assert digests[0] == digests[1]
    assert {Path(name).suffix for name in digests[0]} == {".gz", ".whl"}


def test_the_tools_of_the_build_are_those_of_the_constraints(tmp_path: Path) -> None:
    lowest = re.findall(r'"(hatchling)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[0]
    dist = released(tmp_path / "clone", 0o022, "UTC", f"{lowest[0]}=={lowest[1]}\n")
    with ZipFile(next(dist.glob("*.whl"))) as wheel:
        (name,) = [each for each in wheel.namelist() if each.endswith(".dist-info/WHEEL")]
        assert message_from_bytes(wheel.read(name))["Generator"].startswith(" ".join(lowest))


def test_its_files_have_the_time_of_the_commit(first: Path) -> None:
    committed = subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=first, text=True)
    time = datetime.fromtimestamp(int(committed), UTC)
    with ZipFile(next(first.glob("*.whl"))) as wheel:
        times = {each.date_time for each in wheel.infolist()}
    # A zip file counts in steps of two seconds.
    assert times == {(*time.timetuple()[:5], time.second // 2 * 2)}


def test_the_wheel_has_a_bill_of_what_it_requires_and_of_who_brings_libcurl(first: Path) -> None:
    with ZipFile(next(first.glob("*.whl"))) as wheel:
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        described = message_from_bytes(wheel.read(metadata))
        folder = metadata.removesuffix("METADATA")
        bill = json.loads(wheel.read(f"{folder}sboms/octogen-dagster.cdx.json"))
    component = bill["metadata"]["component"]
    assert (component["name"], component["version"]) == (described["Name"], described["Version"])
    listed = {each["name"]: each for each in bill["components"]}
    required = [line for line in described.get_all("Requires-Dist") or () if "extra ==" not in line]
    assert len(listed) == len(required)
    assert all(line.startswith(tuple(listed)) for line in required)
    assert listed["httpx"]["versionRange"] == "vers:pypi/>=0.28|<0.29"
    assert listed["pycurl"]["components"] == [{"type": "library", "name": "libcurl"}]
