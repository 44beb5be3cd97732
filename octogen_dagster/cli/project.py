"""The dg project that contains the working directory, and the project's `.env` file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click


class Project(NamedTuple):
    """A dg project: its folder and the module with its definitions."""

    folder: Path
    module: str


def find_project() -> Project | None:
    """Return the nearest project in the working directory or a parent folder, or None.

    The search follows dg's rules. If a file is unreadable, print a warning and continue the search,
    because any parent folder can contain such a file.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = next(filter(os.path.isfile, (folder / "dg.toml", folder / "pyproject.toml")), None)
        if path is None:
            continue
        with _reported(path, "The project is ignored"):
            settings = tomllib.loads(path.read_text("utf-8"))
            if path.name == "pyproject.toml":
                settings = settings.get("tool", {}).get("dg", {})
            if settings.get("directory_type") == "project":
                project = settings["project"]
                module = f"{project['root_module']}.definitions"
                return Project(folder, project.get("code_location_target_module", module))
    return None


@contextmanager
def _reported(path: Path, consequence: str) -> Iterator[None]:
    """Print a warning to stderr if the file is unreadable or invalid."""
    try:
        yield
        return
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "is not valid UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"is not valid TOML: {error}"
    except (ValueError, RecursionError) as error:
        problem = f"cannot be read: {error}"
    except (KeyError, TypeError, AttributeError):
        problem = "does not set project.root_module for dg"
    click.echo(f"Warning: {path} {problem}. {consequence}. Correct the file.", err=True)


@contextmanager
def project_environment(project: Project | None) -> Iterator[None]:
    """Load the `.env` file in the project or, outside a project, in the working directory.

    Its values override existing environment variables, as in Dagster.
    """
    path = (project.folder if project else Path.cwd()) / ".env"
    if not path.is_file():
        yield
        return
    from dotenv import dotenv_values

    values: dict[str, str] = {}
    with _reported(path, "Its variables are not set"):
        read = {name: text for name, text in dotenv_values(path).items() if text is not None}
        for name, value in read.items():
            if "=" in name or "\0" in name + value:
                raise ValueError(f"the variable {name!r} contains invalid characters")
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
