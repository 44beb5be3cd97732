"""What follows the products is requested by itself, also if it is switched on after a backfill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.promises.yaml_projects import load, run

FOLLOWERS = ("octogen_products_changes", "octogen_products_brands", "octogen_products_history")


def of_each(partitions: set[str | None]) -> dict[str, set[str | None]]:
    return dict.fromkeys(FOLLOWERS, partitions)


class Automation:
    """Ticks of the automation of a deployment, which is switched on when it is made."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._defs, self._instance, self._cursor = defs, instance, None

    def tick(self) -> dict[str, set[str | None]]:
        """The partitions that a tick requests of each asset."""
        tick: Any = dg.evaluate_automation_conditions(
            self._defs, self._instance, cursor=self._cursor
        )
        self._cursor = tick.cursor
        requested = {
            result.key.to_user_string(): set(tick.get_requested_partitions(result.key))
            for result in tick.results
            if isinstance(result.key, dg.AssetKey)
        }
        return {asset: partitions for asset, partitions in requested.items() if partitions}


@pytest.fixture
def attributes(tmp_path: Path, shops: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The attributes of a component of whole catalogs, with what follows them."""
    for name, value in shops.environment.items():
        monkeypatch.setenv(name, value)
    search = {"name": "octogen_products", "partitions": "catalog"}
    return {
        "storage": {"base_dir": str(tmp_path)},
        "searches": [search | {"changes": True, "brands": True, "history": True}],
    }


@pytest.fixture
def deployment(
    attributes: dict[str, Any], instance: dg.DagsterInstance
) -> Iterator[dg.Definitions]:
    """The definitions, after a backfill of all products."""
    with load(attributes) as (_, defs):
        run(defs, instance, "octogen_catalogs")
        for catalog in ("northpeak", "strada"):
            run(defs, instance, "octogen_products", partition=catalog)
        yield defs


@pytest.mark.long
@pytest.mark.slow
def test_what_follows_begins_if_automation_is_switched_on_after_a_backfill(
    deployment: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    automation = Automation(deployment, instance)
    assert automation.tick() == of_each({"northpeak", "strada"})
    for catalog in ("northpeak", "strada"):
        run(deployment, instance, *FOLLOWERS, partition=catalog)
    assert automation.tick() == {}
    run(deployment, instance, "octogen_products", partition="strada")
    assert automation.tick() == of_each({"strada"})


@pytest.mark.slow
def test_a_missing_partition_is_requested_once_and_not_again_if_its_run_fails(
    deployment: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    automation = Automation(deployment, instance)
    assert automation.tick() == of_each({"northpeak", "strada"})
    assert [automation.tick() for _ in range(3)] == [{}] * 3


@pytest.mark.slow
def test_what_follows_waits_for_the_products_of_a_new_catalog(
    deployment: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["kiosk"])
    automation = Automation(deployment, instance)
    assert automation.tick() == of_each({"northpeak", "strada"})
    assert automation.tick() == {}
    event = dg.AssetMaterialization("octogen_products", partition="kiosk")
    instance.report_runless_asset_event(event)
    assert automation.tick() == of_each({"kiosk"})


def test_what_follows_may_start_switched_on(attributes: dict[str, Any]) -> None:
    def automation_sensors(attributes: dict[str, Any]) -> dict[str, tuple[str, set[str]]]:
        """The status of each sensor of automation conditions, and the assets that it targets."""
        with load(attributes) as (_, defs):
            repository, graph = defs.get_repository_def(), defs.resolve_asset_graph()
            return {
                each.name: (
                    each.default_status.value,
                    {key.to_user_string() for key in each.asset_selection.resolve(graph)},
                )
                for each in repository.sensor_defs
                if isinstance(each, dg.AutomationConditionSensorDefinition)
            }

    assets = {"octogen_catalogs", "octogen_products", *FOLLOWERS}
    assert automation_sensors(attributes) == {
        "default_automation_condition_sensor": ("STOPPED", assets)
    }
    assert automation_sensors(attributes | {"automation": "running"}) == {
        "octogen_automation": ("RUNNING", assets)
    }
