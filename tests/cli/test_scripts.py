"""The console scripts of the package."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
import tomli

import octogen_dagster

ROOT = Path(__file__).parents[2]
SCRIPTS: dict[str, str] = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_a_command(name: str) -> None:
    module, _, attribute = SCRIPTS[name].partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_module_of_a_script_imports_no_heavy_library(name: str) -> None:
    module = SCRIPTS[name].partition(":")[0]
    # The public names of the package import everything, so an empty package stands in for it.
    program = f"""
import sys, types
package = types.ModuleType("octogen_dagster")
package.__path__ = {octogen_dagster.__path__!r}
sys.modules["octogen_dagster"] = package
import {module}
heavy = {{"dagster", "polars", "google.cloud", "httpx", "httpx2", "mcp", "pydantic", "tenacity"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
