"""Tests of the module that every command of `dg` imports."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys


def test_dg_describes_the_component_without_heavy_libraries() -> None:
    (entry,) = importlib.metadata.entry_points(
        group="dagster_dg_cli.registry_modules", name="octogen_dagster"
    )
    program = f"""
import sys
from {entry.value} import OctogenComponent
OctogenComponent.get_model_cls().model_json_schema()
heavy = {{"polars", "google.cloud", "dagster_gcp", "mcp", "pyarrow", "httpx"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
