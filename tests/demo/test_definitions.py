"""The code location of the demo, with and without Analytics Hub."""

import runpy
from pathlib import Path

import pytest

from octogen_dagster.sharing.analytics_hub import EMULATOR_VARIABLE


@pytest.fixture(autouse=True)
def _snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_DEMO_SNAPSHOTS", str(tmp_path))
    monkeypatch.delenv(EMULATOR_VARIABLE, raising=False)


def loaded() -> tuple[list[str], list[str]]:
    """The assets and the sensors of the code location, whose module is run anew."""
    defs = runpy.run_module("octogen_dagster.demo.definitions")["defs"]
    repository = defs.get_repository_def()
    keys = repository.asset_graph.get_all_asset_keys()
    return (
        sorted(key.to_user_string() for key in keys),
        sorted(sensor.name for sensor in repository.sensor_defs),
    )


def test_without_an_emulator_there_are_snapshots_only() -> None:
    assert loaded() == (["octogen_catalogs", "octogen_products"], [])


def test_with_an_emulator_there_are_linked_datasets_and_a_sensor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(EMULATOR_VARIABLE, "127.0.0.1:9")
    assets, sensors = loaded()
    assert assets == ["octogen_catalogs", "octogen_linked_datasets", "octogen_products"]
    assert sensors
