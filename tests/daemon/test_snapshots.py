"""Catalogs are snapshotted by sensor, schedule and backfill in a real Dagster, `dagster dev`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import polars as pl
import pytest
from dagster._core.scheduler.instigation import TickStatus

from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.processes import wait_until
from tests.ports import free_port

LOCATION = """
import dagster as dg
from octogen_dagster import *

products = build_products_asset("products", partitions_def=catalog_partitions)
boots = build_products_asset("boots", ProductSearch(q="boots"))
defs = dg.Definitions(
    assets=[products, boots],
    sensors=[
        build_catalog_sensor(
            products, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
        )
    ],
    schedules=[
        build_snapshot_schedule(
            boots, "* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
        )
    ],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(
            base_url=dg.EnvVar("OCTOGEN_BASE_URL"), catalog_source=GrantedCatalogs()
        ),
        "io_manager": ParquetSnapshotIOManager(base_dir=dg.EnvVar("SNAPSHOTS")),
    },
)
"""
SENSOR = "products_catalog_sensor"
SCHEDULE = "boots_schedule"
BACKFILL = """
mutation {
    launchPartitionBackfill(
        backfillParams: {assetSelection: [{path: ["products"]}], allPartitions: true}
    ) { ... on LaunchBackfillSuccess { backfillId } }
}
"""


class Dagster:
    """A running Dagster: its instance, and the address of its UI."""

    def __init__(self, instance: dg.DagsterInstance, url: str) -> None:
        self.instance = instance
        self.url = url

    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/server_info").is_success
        except httpx.TransportError:
            return False

    def launch_backfill(self) -> str:
        """Start a backfill of all partitions of the products, as the UI does; return its id."""
        response = httpx.post(f"{self.url}/graphql", json={"query": BACKFILL}, timeout=60).json()
        backfill: str = response["data"]["launchPartitionBackfill"]["backfillId"]
        return backfill

    def limit_pool(self, runs: int) -> None:
        self.instance.event_log_storage.set_concurrency_slots("octogen", runs)

    def runs(self, cause: str) -> list[tuple[str | None, str]]:
        """The partition and status of each run that a sensor, a schedule or a backfill caused."""
        causes = ("dagster/sensor_name", "dagster/schedule_name", "dagster/backfill")
        return sorted(
            (run.tags.get("dagster/partition"), run.status.value)
            for run in self.instance.get_runs()
            if cause in (run.tags.get(name) for name in causes)
        )

    def wait_for_runs(self, cause: str, *expected: tuple[str | None, str]) -> None:
        """Wait until a sensor, a schedule or a backfill has caused exactly these runs."""
        wait_until(lambda: self.runs(cause) == list(expected), lambda: self.runs(cause))

    def idle_ticks(self) -> int:
        """The number of ticks of the sensor that requested nothing."""
        states = [each for each in self.instance.all_instigator_state() if each.name == SENSOR]
        return sum(
            len(
                self.instance.get_ticks(
                    each.instigator_origin_id, each.selector_id, statuses=[TickStatus.SKIPPED]
                )
            )
            for each in states
        )


@pytest.fixture
def shops() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}, generation="seed") as running:
        yield running


@pytest.fixture
def dagster(tmp_path: Path, shops: Sandbox) -> Iterator[Dagster]:
    """A Dagster whose runs of the pool wait for a slot."""
    (tmp_path / "location.py").write_text(LOCATION)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    port = free_port()
    places = {"DAGSTER_HOME": str(tmp_path), "SNAPSHOTS": str(tmp_path / "snapshots")}
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {**os.environ, **shops.environment, **places},
        "start_new_session": True,
    }
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        running = Dagster(instance, f"http://127.0.0.1:{port}")
        running.limit_pool(0)
        with (
            open(tmp_path / "dev.log", "wb") as log,
            subprocess.Popen(
                [*command, "-f", "location.py"], stdout=log, stderr=log, **options
            ) as process,
        ):
            try:
                wait_until(running.is_up, (tmp_path / "dev.log").read_text)
                yield running
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_catalogs_are_snapshotted_by_sensor_schedule_and_backfill(
    dagster: Dagster, shops: Sandbox, tmp_path: Path
) -> None:
    instance = dagster.instance

    def snapshot(name: str) -> Path:
        return tmp_path / "snapshots" / f"{name}.parquet"

    # The sensor's runs wait for a slot in their pool while a partition is deleted.
    shops.grant("kiosk", products=7)
    dagster.wait_for_runs(SENSOR, *((key, "QUEUED") for key in ("kiosk", "northpeak", "strada")))
    instance.delete_dynamic_partition("octogen_catalogs", "kiosk")
    backfill = dagster.launch_backfill()
    dagster.limit_pool(4)

    # The run of the deleted partition fails and publishes nothing; the others succeed.
    first = [("kiosk", "FAILURE"), ("northpeak", "SUCCESS"), ("strada", "SUCCESS")]
    dagster.wait_for_runs(SENSOR, *first)
    dagster.wait_for_runs(backfill, ("northpeak", "SUCCESS"), ("strada", "SUCCESS"))
    assert pl.read_parquet(snapshot("products/northpeak")).height == 230
    assert pl.read_parquet(snapshot("products/strada")).height == 120
    assert not snapshot("products/kiosk").exists()

    # A catalog that was indexed anew is requested once; the ticks after that request nothing.
    shops.touch("strada")
    second = [*first, ("strada", "SUCCESS")]
    dagster.wait_for_runs(SENSOR, *second)
    idle = dagster.idle_ticks()
    wait_until(lambda: dagster.idle_ticks() >= idle + 2, dagster.idle_ticks)
    assert dagster.runs(SENSOR) == second

    # The deleted partition is added again, since its catalog is listed. It is tried again after ten
    # minutes, or when the catalog was indexed anew.
    shops.touch("kiosk")
    dagster.wait_for_runs(SENSOR, *sorted([*second, ("kiosk", "SUCCESS")]))
    assert pl.read_parquet(snapshot("products/kiosk")).height == 7

    dagster.wait_for_runs(backfill, ("northpeak", "SUCCESS"), ("strada", "SUCCESS"))
    wait_until(lambda: (None, "SUCCESS") in dagster.runs(SCHEDULE), lambda: dagster.runs(SCHEDULE))
    assert pl.read_parquet(snapshot("boots")).height
