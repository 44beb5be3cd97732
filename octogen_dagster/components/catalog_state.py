"""The state of a component whose catalogs are assets: the catalogs of its source, in a file."""

from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

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
    listed = resource.service().fetch_catalogs()
    for line in listed.warnings:
        dg.get_dagster_logger("octogen").warning(line)
    path.write_bytes(msgspec.json.encode(listed.catalogs))


def read_catalogs(path: Path | None, name: str) -> list[str]:
    """Read the keys of the catalogs in a file that `write_catalogs` wrote.

    An entry that has no key is left out, with a warning in the log.

    Args:
        path: The file; without one there are no catalogs, with a warning in the log.
        name: The component's name.
    """
    log = dg.get_dagster_logger("octogen")
    if path is None:
        log.warning(
            f"OctogenComponent {name!r} knows no catalogs yet, so they are no assets. Run "
            "`dg utils refresh-defs-state`, and load the definitions again."
        )
        return []
    keys = []
    for entry in msgspec.json.decode(path.read_bytes(), type=list[Any]):
        try:
            keys.append(msgspec.convert(entry, CatalogState).catalog)
        except msgspec.ValidationError as error:
            log.warning(
                f"OctogenComponent {name!r} left out a catalog that it cannot read: {error}"
            )
    return keys
