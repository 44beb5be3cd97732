"""The workflows name the supported Pythons, scripts that exist, pinned actions and few rights."""

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


WORKFLOWS = {
    path.stem: loaded(str(path)) for path in sorted((ROOT / ".github/workflows").iterdir())
}
CI, CONTRACT, RELEASE = (WORKFLOWS[name] for name in ("ci", "contract", "release"))


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in WORKFLOWS[workflow]["jobs"].values() for step in job.get("steps", ())]


def rights(workflow: str) -> dict[str, Any]:
    """The rights of each job; None for those that have only the rights of the workflow."""
    return {name: job.get("permissions") for name, job in WORKFLOWS[workflow]["jobs"].items()}


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").iterdir()))
def test_an_action_is_a_commit_with_its_version_beside_it(path: Path) -> None:
    """Whoever moves a branch or a tag of an action does not run code in our name."""
    used = re.findall(r"^ *(?:- )?uses: *(.*)$", path.read_text(), re.MULTILINE)
    pinned = re.compile(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+( .*)?")
    own = re.compile(r"\$/\.github/workflows/\w+\.yml")
    assert used
    assert not [each for each in used if not (pinned.fullmatch(each) or own.fullmatch(each))]


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_checkout_leaves_no_credentials_to_later_steps(workflow: str) -> None:
    checkouts = [step for step in steps(workflow) if "checkout" in step.get("uses", "")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


def test_versions_that_are_pinned_move_when_they_are_a_week_old() -> None:
    updates = loaded(".github/dependabot.yml")["updates"]
    assert {each["package-ecosystem"] for each in updates} == {"github-actions", "pip"}
    assert all(each["cooldown"] == {"default-days": 7} for each in updates)


def test_the_matrix_is_the_supported_pythons() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert CI["jobs"]["tests"]["strategy"]["matrix"]["python"] == classified


def test_only_a_tag_that_passed_the_gate_is_published() -> None:
    # YAML 1.1 takes the word `on` for True.
    assert dict(RELEASE)[True] == {"push": {"tags": ["v*"]}}  # type: ignore[index]
    assert RELEASE["jobs"]["gate"]["uses"] == "$/.github/workflows/ci.yml"
    assert set(RELEASE["jobs"]["publish"]["needs"]) == {"gate", "build"}


def test_only_the_publishing_job_may_identify_itself_and_builds_nothing() -> None:
    assert CI["permissions"] == {"contents": "read"}
    assert not any(rights("ci").values())
    assert RELEASE["permissions"] == {}
    read = {"contents": "read"}
    assert rights("release") == {"gate": read, "build": read, "publish": {"id-token": "write"}}
    assert not [step for step in RELEASE["jobs"]["publish"]["steps"] if "run" in step]


def test_a_release_takes_nothing_from_a_cache_and_its_tools_from_constraints() -> None:
    (uv,) = [step["with"] for step in steps("release") if "setup-uv" in step.get("uses", "")]
    assert uv == {"version": "latest-known", "enable-cache": False}
    constraints = (ROOT / "constraints.txt").read_text()
    for tool in tomli.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]:
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


def test_advisories_are_asked_for_each_week() -> None:
    assert "schedule" in dict(WORKFLOWS["audit"])[True]  # type: ignore[index]
    (command,) = [step["run"] for step in steps("audit") if "run" in step]
    assert re.search(r"\bpip-audit\b.* -r constraints\.txt$", command)


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
    assert os.access(script, os.X_OK) or script.name == "parts"  # which others source
    subprocess.run(["bash", "-n", str(script)], check=True)
