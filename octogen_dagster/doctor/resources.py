"""The resources to check.

They come from a project's definitions, command options and the environment.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from octogen_dagster.api.catalog_sources import GrantedCatalogs, ShopCatalogs
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.doctor.findings import Finding
from octogen_dagster.products.resource import OctogenResource
from octogen_dagster.sharing.hub import EMULATOR_VARIABLE
from octogen_dagster.sharing.names import checked_project
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager

Resources = dict[str, dict[str, Any]]
"""For each `diagnose` argument, a dictionary that maps resource keys to resources."""


@dg.definitions
def _lazy() -> dg.Definitions:
    """An instance of the class that `@dagster.definitions` returns. Dagster does not export it."""
    return dg.Definitions()


def project_resources(folder: Path, module: str) -> tuple[Resources, Finding]:
    """Load a project's definitions. Return the project's resources and a finding."""
    sys.path[:0] = [str(folder), str(folder / "src")]
    try:
        loaded = vars(importlib.import_module(module)).values()
        definitions = [each for each in loaded if isinstance(each, dg.Definitions)]
        definitions += [each() for each in loaded if isinstance(each, type(_lazy))]
        named = {
            name: each for defs in definitions for name, each in (defs.resources or {}).items()
        }
        destinations = _destinations(definitions)
    except Exception as error:  # raised by the project's code, so its text can contain a secret
        kind = type(error).__name__
        said = f"{module} cannot be loaded ({kind}). To see the reason, run `dg check defs`."
        return {}, Finding("Project", "failed", said)
    found: Resources = {}
    for name, resource in named.items():
        if argument := _argument(name, resource):
            found.setdefault(argument, {})[name] = resource
    names = [name for resources in found.values() for name in resources]
    found |= {"tables": destinations} if destinations else {}
    if not names:
        said = (
            f"{module} has no octogen-dagster resources, so the doctor uses environment variables "
            "instead."
        )
        return {}, Finding("Project", "skipped", said)
    *most, last = names
    noun = "resources" if most else "resource"
    said = f"{module} has the {noun} {', '.join(most)}{' and ' if most else ''}{last}."
    return found, Finding("Project", "ok", said)


def home_findings() -> list[Finding]:
    """Warn if DAGSTER_HOME is not set."""
    if os.environ.get("DAGSTER_HOME"):
        return []
    said = "DAGSTER_HOME is not set, so Dagster loses partitions and runs when a command ends."
    return [
        Finding(
            "Dagster home", "warning", said, "In `.env`, set DAGSTER_HOME to an existing folder."
        )
    ]


def _destinations(definitions: Sequence[dg.Definitions]) -> dict[str, Any]:
    """Return the table destinations in the definitions, as a mapping from pool to destination."""
    if "octogen_dagster.tables.asset" not in sys.modules:
        return {}
    from octogen_dagster.tables.asset import DESTINATIONS

    steps = [
        each.node_def
        for defs in definitions
        for each in defs.assets or ()
        if isinstance(each, dg.AssetsDefinition) and each.is_executable
    ]
    found = (DESTINATIONS[step] for step in steps if step in DESTINATIONS)
    return {destination.pool: destination for destination in found}


def _argument(name: str, resource: object) -> str | None:
    """Return the name of the `diagnose` argument that accepts the resource, or None."""
    kinds: dict[type, str] = {
        OctogenResource: "octogen",
        ParquetSnapshotIOManager: "io_manager",
        # Under any other key, the resource is used for queries.
        AnalyticsHubResource: "analytics_hub" if name == "analytics_hub" else "bigquery",
        OctogenControlPlaneResource: "control_plane",
    }
    if google := sys.modules.get("dagster_gcp"):
        kinds[google.BigQueryResource] = "bigquery"
    return next((name for kind, name in kinds.items() if isinstance(resource, kind)), None)


def environment_resources(
    *,
    hosts: Sequence[str] = (),
    base_dir: str | None = None,
    project: str | None = None,
    principal: str | None = None,
) -> Resources:
    """Build resources from the arguments and environment variables."""
    source = ShopCatalogs(hosts) if hosts else GrantedCatalogs()
    resources: dict[str, Any] = {"octogen": OctogenResource(catalog_source=source)}
    if base_dir:
        resources["io_manager"] = ParquetSnapshotIOManager(base_dir=base_dir)
    if project:
        resources["analytics_hub"] = AnalyticsHubResource(project=checked_project(project))
        # If Analytics Hub is a local server, do not check queries with Google either.
        if "BIGQUERY_EMULATOR_HOST" in os.environ or EMULATOR_VARIABLE not in os.environ:
            resources["bigquery"] = resources["analytics_hub"]
    if principal:
        resources["control_plane"] = OctogenControlPlaneResource(principal=principal)
    return {argument: {argument: resource} for argument, resource in resources.items()}
