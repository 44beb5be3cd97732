"""The resources that a few settings and the environment describe, without a definitions file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octogen_dagster.api.catalog_sources import GrantedCatalogs, ShopCatalogs
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.resource import OctogenResource

if TYPE_CHECKING:
    from collections.abc import Sequence


def resources_from_settings(
    *, shops: Sequence[str] = (), base_dir: str | None = None
) -> dict[str, Any]:
    """Return resources by their names as arguments of `diagnose`.

    Args:
        shops: Hosts of the shops whose catalogs are read; without one, catalogs are those that are
            granted to the key.
        base_dir: The folder or bucket of the snapshots.

    Raises:
        ValueError: A setting is malformed.
    """
    resources: dict[str, Any] = {
        "octogen": OctogenResource(catalogs=ShopCatalogs(shops) if shops else GrantedCatalogs())
    }
    if base_dir:
        resources["io_manager"] = ParquetSnapshotIOManager(base_dir=base_dir)
    return resources
