"""Catalogs in a real Dagster: webserver, daemon, code server and runs are processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import polars as pl
import pytest

from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.sandbox.server import Sandbox

_T = TypeVar("_T")

LOCATION = """
import dagster as dg
from octogen_dagster import (
    AnalyticsHubResource, OctogenResource, ParquetSnapshotIOManager, ProductSearch,
    build_catalog_sensor, build_linked_datasets_asset, build_products_asset,
    build_snapshot_schedule, catalog_partitions,
)

products = build_products_asset("products", partitions_def=catalog_partitions)
boots = build_products_asset("boots", ProductSearch(q="boots"))
defs = dg.Definitions(
    assets=[products, boots, build_linked_datasets_asset()],
    sensors=[build_catalog_sensor(products, minimum_interval_seconds=1)],
    schedules=[build_snapshot_schedule(boots, "* * * * *")],
    executor=dg.in_process_executor,
    resources={
        "analytics_hub": AnalyticsHubResource(project="my-project"),
        "octogen": OctogenResource(base_url=dg.EnvVar("OCTOGEN_BASE_URL")),
        "io_manager": ParquetSnapshotIOManager(base_dir=dg.EnvVar("SNAPSHOTS")),
    },
)
"""
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "location.py"}
SENSOR = "products_catalog_sensor"
SCHEDULE = "boots_schedule"
POLL_SECONDS = 120.0


class Dagster:
    """A running Dagster instance, controlled over GraphQL."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def query(self, text: str, **variables: Any) -> Any:
        """Send a query of one field; return the field's value."""
        response = httpx.post(
            f"{self.url}/graphql", json={"query": text, "variables": variables}, timeout=30
        ).json()
        assert "errors" not in response, response
        (value,) = response["data"].values()
        return value

    def wait_for(self, look: Callable[[], _T], is_it: Callable[[_T], bool]) -> _T:
        """Call `look` until `is_it` is true of its result; return that result."""
        seen: object = None
        deadline = time.monotonic() + POLL_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None
            try:
                result = look()
                if is_it(result):
                    return result
                seen = result
            except httpx.TransportError as error:
                seen = error
            time.sleep(0.5)
        raise AssertionError(f"did not happen within {POLL_SECONDS} s; last seen: {seen!r}")

    def wait_for_runs(self, cause: str, *expected: tuple[str | None, str]) -> None:
        """Wait until a sensor, a schedule or a backfill has caused exactly these runs."""
        self.wait_for(lambda: self.runs(cause), lambda runs: runs == list(expected))

    def runs(self, cause: str) -> list[tuple[str | None, str]]:
        """The partition and status of each run that a sensor, a schedule or a backfill caused."""
        found = self.query(
            "{ runsOrError { ... on Runs { results { status tags { key value } } } } }"
        )
        causes = ("dagster/sensor_name", "dagster/schedule_name", "dagster/backfill")
        runs = []
        for run in found["results"]:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            if cause in (tags.get(name) for name in causes):
                runs.append((tags.get("dagster/partition"), run["status"]))
        return sorted(runs)

    def ticks(self, *statuses: str) -> list[int]:
        """The growing ids of the sensor's latest ticks, of these statuses or of any."""
        sensor = self.query(
            "query($s: SensorSelector!, $t: [InstigationTickStatus!]) "
            "{ sensorOrError(sensorSelector: $s) { ... on Sensor "
            "{ sensorState { ticks(limit: 10, statuses: $t) { tickId } } } } }",
            s={**REPOSITORY, "sensorName": SENSOR},
            t=statuses or None,
        )
        return [int(tick["tickId"]) for tick in sensor["sensorState"]["ticks"]]

    def partitions(self) -> list[str]:
        products = self.query(
            '{ assetNodeOrError(assetKey: {path: "products"}) '
            "{ ... on AssetNode { partitionKeys } } }"
        )
        return sorted(products["partitionKeys"])

    def start_sensor(self) -> None:
        started = self.query(
            "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }",
            s={**REPOSITORY, "sensorName": SENSOR},
        )
        assert started == {"__typename": "Sensor"}

    def start_schedule(self) -> None:
        started = self.query(
            "mutation($s: ScheduleSelector!) "
            "{ startSchedule(scheduleSelector: $s) { __typename } }",
            s={**REPOSITORY, "scheduleName": SCHEDULE},
        )
        assert started == {"__typename": "ScheduleStateResult"}

    def limit_pool(self, runs: int) -> None:
        assert self.query(
            'mutation($n: Int!) { setConcurrencyLimit(concurrencyKey: "octogen", limit: $n) }',
            n=runs,
        )

    def delete_partition(self, key: str) -> None:
        deleted = self.query(
            "mutation($r: RepositorySelector!, $k: [String!]!) { deleteDynamicPartitions("
            'repositorySelector: $r, partitionsDefName: "octogen_catalogs", partitionKeys: $k) '
            "{ __typename } }",
            r=REPOSITORY,
            k=[key],
        )
        assert deleted == {"__typename": "DeleteDynamicPartitionsSuccess"}

    def add_listing(self, key: str) -> None:
        added = self.query(
            "mutation($r: RepositorySelector!, $k: String!) { addDynamicPartition("
            'repositorySelector: $r, partitionsDefName: "octogen_listings", partitionKey: $k) '
            "{ __typename } }",
            r=REPOSITORY,
            k=key,
        )
        assert added == {"__typename": "AddDynamicPartitionSuccess"}

    def launch_backfill(self, asset: str) -> str:
        """Start a backfill of all partitions of an asset; return its id."""
        launched = self.query(
            "mutation($a: String!) { launchPartitionBackfill(backfillParams: "
            "{assetSelection: [{path: [$a]}], allPartitions: true}) "
            "{ __typename ... on LaunchBackfillSuccess { backfillId } } }",
            a=asset,
        )
        assert launched["__typename"] == "LaunchBackfillSuccess"
        backfill: str = launched["backfillId"]
        return backfill

    def backfill_status(self, backfill: str) -> str:
        found = self.query(
            "query($b: String!) { partitionBackfillOrError(backfillId: $b) "
            "{ ... on PartitionBackfill { status } } }",
            b=backfill,
        )
        status: str = found["status"]
        return status


@pytest.fixture
def shops() -> Iterator[Sandbox]:
    with Sandbox(
        catalogs={"northpeak": 230, "strada": 120}, hub=True, generation="seed"
    ) as running:
        yield running


@pytest.fixture
def dagster(tmp_path: Path, shops: Sandbox) -> Iterator[Dagster]:
    (tmp_path / "location.py").write_text(LOCATION)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        **shops.environment,
        "DAGSTER_HOME": str(tmp_path),
        "SNAPSHOTS": str(tmp_path / "snapshots"),
    }
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
    with (
        open(tmp_path / "dev.log", "wb") as log,
        subprocess.Popen(
            [*command, "-f", "location.py"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        running = Dagster(f"http://127.0.0.1:{port}", process)
        try:
            running.wait_for(
                lambda: httpx.get(f"{running.url}/server_info"),
                lambda response: response.is_success,
            )
            yield running
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_catalogs_are_snapshotted_by_sensor_schedule_and_backfill(
    dagster: Dagster, shops: Sandbox, tmp_path: Path
) -> None:
    def snapshot(name: str) -> Path:
        return tmp_path / "snapshots" / f"{name}.parquet"

    # The sensor's runs wait for a slot in their pool while a partition is deleted.
    shops.grant("kiosk", products=7)
    dagster.limit_pool(0)
    dagster.start_schedule()
    dagster.start_sensor()
    dagster.wait_for_runs(
        SENSOR, ("kiosk", "QUEUED"), ("northpeak", "QUEUED"), ("strada", "QUEUED")
    )
    assert dagster.partitions() == ["kiosk", "northpeak", "strada"]
    dagster.delete_partition("kiosk")
    backfill = dagster.launch_backfill("products")
    listing = listing_partition_key(shops.hub.share("northpeak"))
    dagster.add_listing(listing)  # by hand: there is no listing sensor
    linking = dagster.launch_backfill("octogen_linked_datasets")
    dagster.limit_pool(4)

    # The run of the deleted partition fails and publishes nothing; the others succeed.
    first = [("kiosk", "FAILURE"), ("northpeak", "SUCCESS"), ("strada", "SUCCESS")]
    dagster.wait_for_runs(SENSOR, *first)
    assert pl.read_parquet(snapshot("products/northpeak")).height == 230
    assert pl.read_parquet(snapshot("products/strada")).height == 120
    assert not snapshot("products/kiosk").exists()

    # A catalog that was indexed anew is requested once; the ticks after that request nothing.
    shops.touch("strada")
    dagster.wait_for_runs(SENSOR, *first, ("strada", "SUCCESS"))
    latest = max(dagster.ticks())
    dagster.wait_for(
        lambda: dagster.ticks("SKIPPED"), lambda idle: sum(tick > latest for tick in idle) >= 2
    )
    assert dagster.runs(SENSOR) == [*first, ("strada", "SUCCESS")]

    # The deleted partition is added again, since its catalog is listed. It is tried again after ten
    # minutes, or when the catalog was indexed anew.
    shops.touch("kiosk")
    dagster.wait_for_runs(SENSOR, first[0], ("kiosk", "SUCCESS"), *first[1:], ("strada", "SUCCESS"))
    assert pl.read_parquet(snapshot("products/kiosk")).height == 7

    dagster.wait_for(
        lambda: dagster.backfill_status(backfill), lambda status: status == "COMPLETED_SUCCESS"
    )
    assert dagster.runs(backfill) == [("northpeak", "SUCCESS"), ("strada", "SUCCESS")]
    dagster.wait_for(
        lambda: dagster.backfill_status(linking), lambda status: status == "COMPLETED_SUCCESS"
    )
    assert dagster.runs(linking) == [(listing, "SUCCESS")]
    assert list(shops.hub.datasets("my-project")) == ["octogen_northpeak"]
    dagster.wait_for(lambda: dagster.runs(SCHEDULE), lambda runs: (None, "SUCCESS") in runs)
    assert pl.read_parquet(snapshot("boots")).height
