"""The project of `dg` that the working directory is in, and its `.env`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click


class Project(NamedTuple):
    """A project of `dg`: its folder and the module that has its definitions."""

    folder: Path
    module: str


def find_project() -> Project | None:
    """Return the nearest project, in the working directory or above it, as `dg` finds it.

    A file that cannot be read is told and passed over: it may be of any folder above.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = next(filter(os.path.isfile, (folder / "dg.toml", folder / "pyproject.toml")), None)
        if path is None:
            continue
        with _told(path, "The project that it describes is not used"):
            settings = tomllib.loads(path.read_text("utf-8"))
            if path.name == "pyproject.toml":
                settings = settings.get("tool", {}).get("dg", {})
            if settings.get("directory_type") == "project":
                project = settings["project"]
                module = f"{project['root_module']}.definitions"
                return Project(folder, project.get("code_location_target_module", module))
    return None


@contextmanager
def _told(path: Path, consequence: str) -> Iterator[None]:
    """Turn what is wrong with a file into a line on stderr."""
    try:
        yield
        return
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"is not TOML: {error}"
    except (ValueError, RecursionError) as error:
        problem = f"cannot be read: {error}"
    except (KeyError, TypeError, AttributeError):
        problem = "names no project.root_module in the settings of dg"
    click.echo(f"Warning: {path} {problem}. {consequence}: correct the file.", err=True)


@contextmanager
def project_environment(project: Project | None) -> Iterator[None]:
    """Add the variables of the project's `.env` to the environment, over those that are there.

    Outside of a project it is the `.env` of the working directory.
    """
    path = (project.folder if project else Path.cwd()) / ".env"
    if not path.is_file():
        yield
        return
    from dotenv import dotenv_values

    # As in Dagster, what the file says wins over what was exported.
    values: dict[str, str] = {}
    with _told(path, "Its variables are not set"):
        read = {name: text for name, text in dotenv_values(path).items() if text is not None}
        for name, value in read.items():
            if "=" in name or "\0" in name + value:
                raise ValueError(f"no environment can have its variable {name!r}")
        values = read
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, text in before.items():
            os.environ.pop(name, None)
            if text is not None:
                os.environ[name] = text
