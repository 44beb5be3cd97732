"""dbt, in an environment of its own for its many dependencies, and a project of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = """
name: shop
version: "1.0"
profile: shop
model-paths: [models]
"""
PROFILES = """
shop:
  target: dev
  outputs:
    dev: {type: duckdb, path: shop.duckdb}
"""
UPSTREAM = """
from pathlib import Path
from dagster_dbt import dbt_assets

@dbt_assets(manifest=Path("target/manifest.json"))
def models(): ...

[model] = models.specs
[source] = model.deps
print(source.asset_key.to_user_string())
"""


def install_dbt(folder: Path) -> Path:
    """Install dbt into a folder, and return the path of its command."""
    python = folder / "venv/bin/python"
    # dbt-core 1.12 downloads a part of itself from elsewhere than the index.
    packages = ["dbt-duckdb>=1.9", "dbt-core<1.12", "dagster-dbt>=0.29.27,<0.30"]
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, python.parents[1]], check=True)
    subprocess.run(["uv", "pip", "install", "-q", "--python", python, *packages], check=True)
    return python.with_name("dbt")


def make_project(models: Mapping[str, str], source: str) -> None:
    """Write a project into the working directory: its models by their names, and its sources."""
    files = {f"models/{name}.sql": model for name, model in models.items()}
    files |= {"dbt_project.yml": PROJECT, "profiles.yml": PROFILES, "models/sources.yml": source}
    Path("models").mkdir(exist_ok=True)
    for path, content in files.items():
        Path(path).write_text(content)


def run(*command: str | Path) -> str:
    variables = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def upstream(dbt: Path) -> str:
    """Return the key of the asset that the only model of the built project follows in Dagster."""
    return run(dbt.with_name("python"), "-c", UPSTREAM).strip()
