"""The code location of the demo, with and without Analytics Hub."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from octogen_dagster.demo.definitions import defs
repository = defs.get_repository_def()
print(*sorted(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()))
print(*sorted(sensor.name for sensor in repository.sensor_defs))
"""


def loaded(folder: Path, **variables: str) -> tuple[str, str]:
    """The assets and the sensors of the code location, loaded in a process of its own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "ANALYTICS_HUB_EMULATOR_HOST" and not name.startswith("OCTO")
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=environment | {"OCTOGEN_DEMO_SNAPSHOTS": str(folder)} | variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assets, sensors = done.stdout.splitlines()
    return assets, sensors


def test_without_an_emulator_there_are_snapshots_only(tmp_path: Path) -> None:
    assert loaded(tmp_path) == ("octogen_catalogs octogen_products", "")


def test_with_an_emulator_there_are_linked_datasets_and_a_sensor(tmp_path: Path) -> None:
    assets, sensors = loaded(tmp_path, ANALYTICS_HUB_EMULATOR_HOST="127.0.0.1:9")
    assert assets.split() == [
        "octogen_catalogs",
        "octogen_linked_datasets",
        "octogen_products",
    ]
    assert sensors
