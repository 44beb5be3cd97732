"""A run that a sensor requests names its asset, which the runs page shows, and has its checks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from octogen_dagster import (
    build_products_asset,
    build_snapshot_checks,
    catalog_partitions,
)
from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.processes import processes

LOCATION = """
import dagster as dg
import polars as pl
from octogen_dagster import (
    AnalyticsHubResource, ExchangeSource, NamedCatalogs, OctogenResource,
    ParquetSnapshotIOManager, build_catalog_sensor, build_linked_datasets_asset,
    build_listing_sensor, build_products_asset, build_snapshot_checks, catalog_partitions,
)

products = build_products_asset("products", partitions_def=catalog_partitions)
linked = build_linked_datasets_asset()

@dg.asset(partitions_def=catalog_partitions)
def titles(products: pl.DataFrame) -> pl.DataFrame:
    return products.select("title")

defs = dg.Definitions(
    assets=[products, titles, linked],
    asset_checks=build_snapshot_checks(products),
    sensors=[
        build_catalog_sensor(
            products, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
        ),
        build_listing_sensor(
            ExchangeSource(dg.EnvVar("EXCHANGE").get_value()), linked,
            default_status=dg.DefaultSensorStatus.RUNNING,
        ),
    ],
    executor=dg.in_process_executor,
    resources={
        "analytics_hub": AnalyticsHubResource(project="my-project"),
        "octogen": OctogenResource(catalogs=NamedCatalogs(["acme"])),
        "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
    },
)
"""
ASSETS = {
    "products_catalog_sensor": dg.AssetKey("products"),
    "octogen_listing_sensor": dg.AssetKey("octogen_linked_datasets"),
}
CHECKS = {
    spec.name
    for checks in build_snapshot_checks(
        build_products_asset("products", partitions_def=catalog_partitions)
    )
    for spec in checks.check_specs
}
WAIT_SECONDS = 150.0


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Yield the instance of a daemon that runs both sensors."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (tmp_path / "location.py").write_text(LOCATION)
    daemon = str(Path(sys.executable).with_name("dagster-daemon"))
    with Sandbox(catalogs={"acme": 30}, hub=True, generation="current") as shops:
        shops.hub.share("acme")
        environment = {**shops.environment, "EXCHANGE": shops.hub.exchange}
        with processes(tmp_path, environment) as started:
            started.start(daemon, "run", "-f", "location.py")
            with dg.DagsterInstance.from_config(str(tmp_path)) as running:
                yield running


def finished(instance: dg.DagsterInstance) -> dict[str, dg.DagsterRun]:
    """Wait for a finished run of each sensor, and return it."""
    deadline = time.monotonic() + WAIT_SECONDS
    found: dict[str, dg.DagsterRun] = {}
    while found.keys() != ASSETS.keys():
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
        for run in instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
            found[run.tags["dagster/sensor_name"]] = run
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_requested_run_names_its_asset_and_answers_its_checks(
    instance: dg.DagsterInstance,
) -> None:
    runs = finished(instance)
    assert {sensor: run.asset_selection for sensor, run in runs.items()} == {
        sensor: {key} for sensor, key in ASSETS.items()
    }
    for sensor, run in runs.items():
        made = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        assert [entry.get_dagster_event().asset_key for entry in made] == [ASSETS[sensor]]
    evaluated = instance.all_logs(
        runs["products_catalog_sensor"].run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    events = [entry.get_dagster_event() for entry in evaluated]
    assert {event.asset_check_evaluation_data.check_name for event in events} == CHECKS
    assert len(CHECKS) == len(events) == 10
