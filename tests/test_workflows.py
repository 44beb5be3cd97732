"""Tests of the automation: the workflows, the pre-commit hook and the scripts that they run."""

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
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.is_file())


def loaded(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return content


CI = loaded(".github/workflows/ci.yml")
RELEASE = loaded(".github/workflows/release.yml")
STEPS = [
    step
    for workflow in (CI, RELEASE)
    for job in workflow["jobs"].values()
    for step in job.get("steps", [])
]


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    """Return the `on` of a workflow. YAML 1.1, which PyYAML reads, takes that word for True."""
    found: dict[str, Any] = workflow[True]
    return found


def test_the_matrix_is_the_supported_pythons() -> None:
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert CI["jobs"]["tests"]["strategy"]["matrix"]["python"] == classified
    bounds = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"])
    assert bounds
    assert classified == [f"3.{minor}" for minor in range(int(bounds[1]), int(bounds[2]))]


def test_the_workflow_runs_the_gate() -> None:
    assert {"run": ".ci/run"} in CI["jobs"]["gate"]["steps"]
    assert ".ci/static\n" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("action", sorted({step["uses"] for step in STEPS if "uses" in step}))
def test_actions_are_pinned_by_their_major_version(action: str) -> None:
    assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action)


def test_only_a_tag_that_passed_the_gate_is_published() -> None:
    assert triggers(RELEASE) == {"push": {"tags": ["v*"]}}
    jobs = RELEASE["jobs"]
    assert jobs["gate"] == {"uses": "./.github/workflows/ci.yml"}
    assert "workflow_call" in triggers(CI)
    assert set(jobs["publish"]["needs"]) == {"gate", "build"}


def test_only_the_publishing_job_may_identify_itself() -> None:
    jobs = {**CI["jobs"], **RELEASE["jobs"]}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert CI["permissions"] == RELEASE["permissions"] == {"contents": "read"}
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


def test_the_hook_fetches_nothing_and_runs_a_script_of_the_gate() -> None:
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    (hook,) = repository["hooks"]
    assert hook["language"] == "system"
    assert ROOT / hook["entry"] in SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=30)
