"""Components as YAML files write them, in the folder of a project, and runs of their assets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster.components.testing import create_defs_folder_sandbox

from octogen_dagster.components import OctogenComponent, OctogenLinkedDatasetsComponent

TYPE = "octogen_dagster.components.OctogenComponent"
LINKED = "octogen_dagster.components.OctogenLinkedDatasetsComponent"
Component = OctogenComponent | OctogenLinkedDatasetsComponent


def _with_source(attributes: Mapping[str, Any], type: str) -> dict[str, Any]:
    """Name a catalog source, without which partitions of catalogs do not load."""
    return {**({"catalog_source": "granted"} if type == TYPE else {}), **attributes}


@contextmanager
def load(
    attributes: Mapping[str, Any], type: str = TYPE, **document: Any
) -> Iterator[tuple[Component, dg.Definitions]]:
    """Load a component and its definitions; `document` are other entries of the YAML file."""
    contents = {"type": type, "attributes": _with_source(attributes, type), **document}
    with create_defs_folder_sandbox() as project:
        path = project.scaffold_component(OctogenComponent, defs_yaml_contents=contents)
        with project.load_component_and_build_defs(path) as (component, defs):
            assert isinstance(component, Component)
            yield component, defs


@contextmanager
def load_all(*components: Mapping[str, Any], type: str = TYPE) -> Iterator[dg.Definitions]:
    """Load a project with a folder for each component, of which these are the attributes."""
    with create_defs_folder_sandbox() as project:
        for attributes in components:
            contents = {"type": type, "attributes": _with_source(attributes, type)}
            project.scaffold_component(OctogenComponent, defs_yaml_contents=contents)
        with project.build_all_defs() as defs:
            yield defs


def run(
    defs: dg.Definitions, instance: dg.DagsterInstance, *keys: str, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize assets, with their checks."""
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey.from_user_string(key) for key in keys],
        partition_key=partition,
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
