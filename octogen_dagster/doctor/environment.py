"""The resources that a few settings and the environment describe, without a definitions file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from octogen_dagster.api.catalog_sources import GrantedCatalogs, ShopCatalogs
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.sharing.hub import EMULATOR_VARIABLE as ANALYTICS_HUB_VARIABLE
from octogen_dagster.sharing.names import checked_project
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.resource import OctogenResource

if TYPE_CHECKING:
    from collections.abc import Sequence


def resources_from_settings(
    *,
    shops: Sequence[str] = (),
    base_dir: str | None = None,
    project: str | None = None,
    principal: str | None = None,
) -> dict[str, Any]:
    """Return resources by their names as arguments of `diagnose`.

    Args:
        shops: Hosts of the shops whose catalogs are read; without one, catalogs are those that are
            granted to the key.
        base_dir: The folder or bucket of the snapshots.
        project: The Google Cloud project of linked datasets and queries.
        principal: The IAM principal that catalogs are shared with.

    Raises:
        ValueError: A setting is malformed.
    """
    resources: dict[str, Any] = {
        "octogen": OctogenResource(catalogs=ShopCatalogs(shops) if shops else GrantedCatalogs())
    }
    if base_dir:
        resources["io_manager"] = ParquetSnapshotIOManager(base_dir=base_dir)
    if project:
        resources["analytics_hub"] = AnalyticsHubResource(project=checked_project(project))
        # If Analytics Hub is a local server, Google is not asked about queries either.
        if "BIGQUERY_EMULATOR_HOST" in os.environ or ANALYTICS_HUB_VARIABLE not in os.environ:
            from dagster_gcp import BigQueryResource

            resources["bigquery"] = BigQueryResource(project=project)
    if principal:
        resources["control_plane"] = OctogenControlPlaneResource(principal=principal)
    return resources
