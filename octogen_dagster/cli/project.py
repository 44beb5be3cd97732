"""The project of the working directory, found as `dg` finds it, and its `.env`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@contextmanager
def project_environment() -> Iterator[None]:
    """Add the variables of the project's `.env` to the environment, over those that are there.

    Outside of a project it is the `.env` of the working directory.
    """
    path = (find_project() or Path.cwd()) / ".env"
    if not path.is_file():
        yield
        return
    from dotenv import dotenv_values

    before = os.environ.copy()
    # As in Dagster, what the file says wins over what was exported.
    os.environ.update(
        {name: text for name, text in dotenv_values(path).items() if text is not None}
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def find_project() -> Path | None:
    """Return the folder of the nearest project, in the working directory or above it."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _settings(folder)), None)


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the project in a folder; empty if it has none."""
    if (path := folder / "dg.toml").is_file():
        settings = tomllib.loads(path.read_text())
    elif (path := folder / "pyproject.toml").is_file():
        settings = tomllib.loads(path.read_text()).get("tool", {}).get("dg", {})
    else:
        return {}
    return settings if settings.get("directory_type") == "project" else {}
