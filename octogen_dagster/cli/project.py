"""The project of `dg` that the working directory is in, and its `.env`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Project(NamedTuple):
    """A project of `dg`: its folder and the module that has its definitions."""

    folder: Path
    module: str


def find_project() -> Project | None:
    """Return the nearest project, in the working directory or above it, as `dg` finds it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        settings = _settings(folder)
        if settings.get("directory_type") == "project":
            project = settings["project"]
            module = f"{project['root_module']}.definitions"
            return Project(folder, project.get("code_location_target_module", module))
    return None


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of `dg` in a folder; empty if there are none."""
    if (path := folder / "dg.toml").is_file():
        return tomllib.loads(path.read_text())
    if (path := folder / "pyproject.toml").is_file():
        settings: dict[str, Any] = tomllib.loads(path.read_text()).get("tool", {}).get("dg", {})
        return settings
    return {}


@contextmanager
def project_environment() -> Iterator[None]:
    """Add the variables of the project's `.env` to the environment, over those that are there.

    Outside of a project it is the `.env` of the working directory.
    """
    project = find_project()
    path = (project.folder if project else Path.cwd()) / ".env"
    if not path.is_file():
        yield
        return
    from dotenv import dotenv_values

    # As in Dagster, what the file says wins over what was exported.
    values = {name: text for name, text in dotenv_values(path).items() if text is not None}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, text in before.items():
            os.environ.pop(name, None)
            if text is not None:
                os.environ[name] = text
