"""Fixtures of the tests of snapshots."""

from pathlib import Path
from typing import Any

import pytest

from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.resource import OctogenResource


@pytest.fixture
def resources(tmp_path: Path, octogen: OctogenResource) -> dict[str, Any]:
    """Return resources that read `shops` and store snapshots below `tmp_path`."""
    return {"octogen": octogen, "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path))}
