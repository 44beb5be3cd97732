"""Components as YAML files write them, in the folder of a project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from octogen_dagster.components import OctogenComponent

TYPE = "octogen_dagster.components.OctogenComponent"


def scaffold(project: DefsFolderSandbox, contents: dict[str, Any]) -> Path:
    """Write a YAML file into a folder of its own, and return the folder."""
    return project.scaffold_component(
        OctogenComponent, scaffold_params={"granted": True}, defs_yaml_contents=contents
    )


@contextmanager
def load(
    attributes: Mapping[str, Any], **document: Any
) -> Iterator[tuple[OctogenComponent, dg.Definitions]]:
    """Load a component and its definitions.

    Args:
        attributes: The attributes in the YAML file.
        document: Other entries of the file, such as post_processing; `type` is a class of its own.
    """
    contents = {"type": TYPE, "attributes": dict(attributes), **document}
    with create_defs_folder_sandbox() as project:
        path = scaffold(project, contents)
        with project.load_component_and_build_defs(path) as (component, defs):
            assert isinstance(component, OctogenComponent)
            yield component, defs


@contextmanager
def load_all(*components: Mapping[str, Any]) -> Iterator[dg.Definitions]:
    """Load a project with a folder for each component.

    Args:
        components: The attributes in each YAML file.
    """
    with create_defs_folder_sandbox() as project:
        for attributes in components:
            scaffold(project, {"type": TYPE, "attributes": dict(attributes)})
        with project.build_all_defs() as defs:
            yield defs
