"""The workflow files name the supported Pythons, the scripts that exist, and few rights."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomli
import yaml

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())


def loaded(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return content


CI = loaded(".github/workflows/ci.yml")
RELEASE = loaded(".github/workflows/release.yml")
CONTRACT = loaded(".github/workflows/contract.yml")


def test_the_matrix_is_the_supported_pythons() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert CI["jobs"]["tests"]["strategy"]["matrix"]["python"] == classified


def test_only_a_tag_that_passed_the_gate_is_published() -> None:
    # YAML 1.1 takes the word `on` for True.
    assert dict(RELEASE)[True] == {"push": {"tags": ["v*"]}}  # type: ignore[index]
    assert RELEASE["jobs"]["gate"] == {"uses": "./.github/workflows/ci.yml"}
    assert set(RELEASE["jobs"]["publish"]["needs"]) == {"gate", "build"}


def test_only_the_publishing_job_may_identify_itself() -> None:
    jobs = {**CI["jobs"], **RELEASE["jobs"]}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert CI["permissions"] == RELEASE["permissions"] == {"contents": "read"}


def test_the_drift_watch_may_write_issues_and_runs_what_is_there() -> None:
    assert CONTRACT["permissions"] == {"contents": "read", "issues": "write"}
    (job,) = CONTRACT["jobs"].values()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    modules = re.findall(r"python -m (tests\.\S+)", commands)
    assert modules == ["tests.contract.drift", "tests.contract.published_drift"]
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in modules)


def test_what_the_gate_leaves_out_runs_beside_it_on_each_push() -> None:
    assert "slow and not (long or world)" in (ROOT / ".ci/run").read_text()
    matrix = (ROOT / ".ci/matrix").read_text()
    assert "-m 'long and not world'" in matrix
    assert "-m world" in matrix
    steps = [step.get("run") for job in CI["jobs"].values() for step in job["steps"]]
    assert {".ci/run", ".ci/matrix long", ".ci/matrix world"} <= set(steps)
    assert "push" in dict(CI)[True]  # type: ignore[index]


def test_the_fast_tests_have_none_that_is_long_or_needs_a_world(
    request: pytest.FixtureRequest,
) -> None:
    """A test that is marked so is marked slow too, by which it is left out."""
    marks = {
        each.nodeid: {mark.name for mark in each.iter_markers()} for each in request.session.items
    }
    assert not [test for test, of in marks.items() if of & {"long", "world"} and "slow" not in of]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK) or script.name == "parts"  # which others source
    subprocess.run(["bash", "-n", str(script)], check=True)
