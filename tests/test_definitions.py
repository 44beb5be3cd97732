"""The code location of the checkout, as `dagster dev` and `dg` load it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DG = Path(sys.executable).with_name("dg")


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCTO")}
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return {**kept, "DAGSTER_HOME": str(home), "DG_CLI_CONFIG": str(home / "dg.toml")}


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        [str(DG), "check", "defs"],
    ],
    ids=["dagster", "dg"],
)
def test_the_definitions_load_without_a_key(command: list[str], tmp_path: Path) -> None:
    if command[0] == str(DG) and not DG.exists():
        pytest.skip("needs dagster-dg-cli")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_without_a_key_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-f", "definitions.py"]
    done = subprocess.run(
        [*command, "--select", "octogen_catalogs"],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert "No Octogen API key: pass api_key or set OCTO_API_KEY" in done.stderr
    assert "octogen-dagster sandbox" in done.stderr


def test_they_show_both_styles_of_keeping_assets_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    defs = importlib.import_module("definitions").defs

    schedules = {schedule.name: schedule for schedule in defs.schedules}
    assert {name: each.execution_timezone for name, each in schedules.items()} == {
        "linen_dresses_schedule": "Europe/Berlin",
        "octogen_products_schedule": "Europe/Berlin",
    }
    assert {sensor.name for sensor in defs.sensors} == {
        "octogen_catalog_sensor",
        "octogen_listing_sensor",
    }
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    followers = {name for name, spec in specs.items() if spec.automation_condition}
    assert followers == {"brands", "octogen_products_changes"}
    due = {name for name, spec in specs.items() if spec.freshness_policy}
    assert due == {"linen_dresses", "octogen_products"}
