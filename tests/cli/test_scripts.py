"""The console scripts of the package."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest
import tomli

ROOT = Path(__file__).parents[2]
SCRIPTS: dict[str, str] = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_a_command(name: str) -> None:
    module, _, attribute = SCRIPTS[name].partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)
