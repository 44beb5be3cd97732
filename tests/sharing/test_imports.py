from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from octogen_dagster import sharing


def test_importing_the_package_leaves_the_heavy_libraries_alone() -> None:
    files = Path(sharing.__file__).parent.glob("*.py")
    modules = [f"octogen_dagster.sharing.{path.stem}" for path in files if path.stem != "__init__"]
    program = f"""
import sys
import {", ".join(modules)}, octogen_dagster.cli.bigquery
heavy = {{"google.cloud", "google.auth", "google.api_core", "mcp", "httpx", "httpx2"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
