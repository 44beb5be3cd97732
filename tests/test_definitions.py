"""Tests of definitions.py: it loads as `dagster dev` and `dg` load it, and says what is missing."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parent.parent
DG = Path(sys.executable).with_name("dg")


def run(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout, without Octogen's variables and with a Dagster of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCTO")}
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**kept, "DAGSTER_HOME": str(home), "DG_CLI_CONFIG": str(home / "dg.toml")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
            id="dagster",
        ),
        pytest.param([str(DG), "check", "defs"], id="dg", marks=pytest.mark.long),
    ],
)
def test_the_definitions_load_without_a_key(command: list[str], tmp_path: Path) -> None:
    if command[0] == str(DG) and not DG.exists():
        pytest.skip("needs dagster-dg-cli")
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_without_a_key_says_what_to_do(instance: dg.DagsterInstance) -> None:
    defs = runpy.run_path(str(ROOT / "definitions.py"))["defs"]
    job = defs.resolve_implicit_global_asset_job_def()
    with pytest.raises(dg.Failure) as caught:
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("octogen_catalogs")])
    text = str(caught.value)
    assert "No Octogen API key was found. Set OCTOGEN_PLATFORM_API_KEY" in text
    assert "octogen-dagster sandbox" in text


@pytest.mark.parametrize(
    ("environment", "base_url"),
    [
        ({}, None),
        ({"OCTOGEN_ENV": "production"}, None),
        ({"OCTOGEN_ENV": "sandbox"}, "http://127.0.0.1:8787/v1"),
        (
            {"OCTOGEN_ENV": "sandbox", "OCTOGEN_BASE_URL": "http://127.0.0.1:9999/v1"},
            "http://127.0.0.1:9999/v1",
        ),
    ],
)
def test_the_environment_chooses_the_service(
    environment: dict[str, str], base_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    octogen = runpy.run_path(str(ROOT / "definitions.py"))["octogen"]
    assert octogen.base_url == base_url
