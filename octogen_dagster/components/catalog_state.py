"""The state of a component whose catalogs are assets: the catalogs of its source, in a file."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import msgspec

from octogen_dagster.api.catalog_sources import fetch_catalogs
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.snapshots.resource import OctogenResource


def write_catalogs(octogen: OctogenResource, path: Path) -> None:
    """Write the catalogs of a resource's source to a file.

    Args:
        octogen: The resource; environment variables of its fields are read now.
        path: The file.

    Raises:
        OctogenError: The catalogs cannot be listed.
    """
    resource = octogen.process_config_and_initialize()
    listed = fetch_catalogs(resource.connection())
    for line in listed.warnings:
        dg.get_dagster_logger("octogen").warning(line)
    path.write_bytes(msgspec.json.encode(listed.catalogs))


def read_catalogs(path: Path) -> Sequence[CatalogState]:
    """Read the catalogs of a file that `write_catalogs` wrote.

    Args:
        path: The file.
    """
    return msgspec.json.decode(path.read_bytes(), type=list[CatalogState])
