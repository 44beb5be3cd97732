"""The code location of the demo, with and without Analytics Hub."""

import runpy
from pathlib import Path

import dagster as dg
import pytest

from octogen_dagster.sharing.hub import EMULATOR_VARIABLE

ASSETS = [
    "octogen_catalogs",
    "octogen_products",
    "octogen_products_brands",
    "octogen_products_changes",
    "sweaters",
    "sweaters_details",
]
SENSORS = ["octogen_automation", "octogen_catalog_sensor"]


@pytest.fixture(autouse=True)
def _snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_DEMO_SNAPSHOTS", str(tmp_path))
    monkeypatch.delenv(EMULATOR_VARIABLE, raising=False)


def load() -> dg.RepositoryDefinition:
    """The code location, whose module is run anew."""
    defs: dg.Definitions = runpy.run_module("octogen_dagster.demo.definitions")["defs"]
    return defs.get_repository_def()


def assets(repository: dg.RepositoryDefinition) -> list[str]:
    return sorted(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys())


def sensors(repository: dg.RepositoryDefinition) -> list[str]:
    return sorted(sensor.name for sensor in repository.sensor_defs)


def test_without_an_emulator_there_are_snapshots_only() -> None:
    repository = load()
    assert (assets(repository), sensors(repository)) == (ASSETS, SENSORS)


def test_with_an_emulator_there_are_linked_datasets_and_a_sensor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(EMULATOR_VARIABLE, "127.0.0.1:9")
    repository = load()
    assert assets(repository) == sorted([*ASSETS, "octogen_linked_datasets"])
    assert sensors(repository) == sorted([*SENSORS, "octogen_listing_sensor"])


def test_everything_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATOR_VARIABLE, "127.0.0.1:9")
    repository = load()
    assert {sensor.default_status for sensor in repository.sensor_defs} == {
        dg.DefaultSensorStatus.RUNNING
    }
    assert [schedule.default_status for schedule in repository.schedule_defs] == [
        dg.DefaultScheduleStatus.RUNNING
    ]


def test_the_catalogs_are_upstream_and_everything_of_products_is_connected() -> None:
    graph = load().asset_graph
    roots = {key.to_user_string() for key in graph.root_materializable_asset_keys}
    assert roots == {"octogen_catalogs"}


def test_each_asset_says_what_it_is() -> None:
    graph = load().asset_graph
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())
