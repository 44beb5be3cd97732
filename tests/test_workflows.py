"""What zizmor does not see: the workflows' Pythons, scripts, order of jobs and rights of each."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())


def loaded(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return content


WORKFLOWS = {
    path.stem: loaded(str(path)) for path in sorted((ROOT / ".github/workflows").iterdir())
}
CI, CONTRACT, RELEASE = (WORKFLOWS[name] for name in ("ci", "contract", "release"))


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job.get("steps", ())]


def rights(workflow: str) -> dict[str, Any]:
    """The rights of each job; None for those that have only the rights of the workflow."""
    return {name: job.get("permissions") for name, job in WORKFLOWS[workflow]["jobs"].items()}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_checkout_leaves_no_credentials_to_later_steps(workflow: str) -> None:
    checkouts = [step for step in steps(workflow) if "checkout" in step.get("uses", "")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_the_matrix_is_the_supported_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert CI["jobs"]["tests"]["strategy"]["matrix"]["python"] == classified


def test_only_a_tag_that_passed_the_gate_is_published() -> None:
    # YAML 1.1 takes the word `on` for True.
    assert dict(RELEASE)[True] == {"push": {"tags": ["v*"]}}  # type: ignore[index]
    assert RELEASE["jobs"]["gate"]["uses"] == "$/.github/workflows/ci.yml"
    assert set(RELEASE["jobs"]["publish"]["needs"]) == {"gate", "build"}


def test_only_the_publishing_job_may_identify_itself_and_builds_nothing() -> None:
    assert RELEASE["permissions"] == {}
    read = {"contents": "read"}
    assert rights("release") == {"gate": read, "build": read, "publish": {"id-token": "write"}}
    assert not [step for step in RELEASE["jobs"]["publish"]["steps"] if "run" in step]


def test_the_tools_of_a_release_are_in_the_constraints() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    for tool in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]:
        assert f"\n{tool.partition('>')[0]}==" in constraints


def test_the_drift_watch_runs_foreign_code_without_a_right_to_write() -> None:
    assert CONTRACT["permissions"] == {}
    assert rights("contract") == {"drift": {"contents": "read"}, "issue": {"issues": "write"}}
    commands = "\n".join(step.get("run", "") for step in CONTRACT["jobs"]["drift"]["steps"])
    modules = re.findall(r"python -m (tests\.\S+)", commands)
    assert modules == ["tests.contract.drift", "tests.contract.published_drift"]
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in modules)
    download, writing = CONTRACT["jobs"]["issue"]["steps"]
    assert "download-artifact" in download["uses"]
    assert set(re.findall(r"^ *(gh|uv|python|curl)\b", writing["run"], re.MULTILINE)) == {"gh"}


def test_what_the_gate_leaves_out_runs_beside_it_on_each_push() -> None:
    assert "slow and not (long or world)" in (ROOT / ".ci/run").read_text()
    matrix = (ROOT / ".ci/matrix").read_text()
    assert "-m 'long and not world'" in matrix
    assert "-m world" in matrix
    commands = {step.get("run") for step in steps("ci")}
    assert {".ci/run", ".ci/matrix long", ".ci/matrix world"} <= commands
    assert "push" in dict(CI)[True]  # type: ignore[index]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK) or script.name == "lib.sh"  # which others source
    subprocess.run(["bash", "-n", str(script)], check=True)
