"""The resources of a user's Definitions."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import dagster as dg

from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager

_ARGUMENTS = {
    "octogen": "octogen",
    "analytics_hub": "analytics_hub",
    "octogen_control_plane": "control_plane",
    "bigquery": "bigquery",
}
"""The names of resources, which the assets ask for, as arguments of `diagnose`."""


def resources_from_definitions(module: ModuleType, attribute: str | None = None) -> dict[str, Any]:
    """Return the resources of a module's Definitions by their names as arguments of `diagnose`.

    Of several IO managers of this package the one with the name `io_manager` is taken, or else the
    first one.

    Args:
        module: The module.
        attribute: The name of its Definitions, or of a function that returns them; by default the
            only ones in it.

    Raises:
        ValueError: The module has no Definitions, or several.
    """
    resources = dict(_definitions(module, attribute).resources or {})
    found = {
        argument: resources[name] for name, argument in _ARGUMENTS.items() if name in resources
    }
    io_managers = {
        name: each for name, each in resources.items() if isinstance(each, ParquetSnapshotIOManager)
    }
    if io_managers:
        found["io_manager"] = io_managers.get("io_manager") or next(iter(io_managers.values()))
    return found


def load_module(name: str) -> ModuleType:
    """Import a module, which may be in the working directory.

    Args:
        name: The module's name.

    Raises:
        ValueError: There is no such module.
    """
    _add_working_directory()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there and imports what is missing
        raise ValueError(
            f"Module {name!r} does not exist here. Correct its name, or run the command in the "
            "folder that it is in."
        ) from None


def load_file(path: Path) -> ModuleType:
    """Import a file.

    Args:
        path: The file, which exists.
    """
    _add_working_directory()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file: give the file that has your Definitions.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _add_working_directory() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _definitions(module: ModuleType, attribute: str | None) -> dg.Definitions:
    from dagster.components.definitions import LazyDefinitions

    if attribute is None:
        names = [
            name
            for name, value in vars(module).items()
            if isinstance(value, dg.Definitions | LazyDefinitions)
        ]
        if len(names) != 1:
            raise ValueError(
                f"{module.__name__} has {' and '.join(names) or 'no'} Definitions: name those to "
                "check with --attribute."
            )
        attribute = names[0]
    found = getattr(module, attribute, None)
    if isinstance(found, LazyDefinitions | FunctionType):
        found = found()
    if not isinstance(found, dg.Definitions):
        raise ValueError(
            f"{attribute!r} of {module.__name__} is not Definitions: name another one."
        )
    return found
