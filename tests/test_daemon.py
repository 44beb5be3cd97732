"""The sensor in a real Dagster: webserver, daemon, code server, runs in processes of their own."""

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

from octogen_dagster.sandbox.server import Sandbox

_T = TypeVar("_T")

LOCATION = """
import dagster as dg
from octogen_dagster import (
    OctogenResource, ParquetSnapshotIOManager, build_catalog_sensor, build_products_asset,
    catalog_partitions,
)

products = build_products_asset("products", partitions_def=catalog_partitions)
defs = dg.Definitions(
    assets=[products],
    sensors=[build_catalog_sensor(products, minimum_interval_seconds=1)],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(base_url=dg.EnvVar("OCTOGEN_BASE_URL")),
        "io_manager": ParquetSnapshotIOManager(base_dir=dg.EnvVar("SNAPSHOTS")),
    },
)
"""
SECONDS_TO_WAIT = 120.0


class Dagster:
    """A running instance, over GraphQL."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def query(self, text: str, **variables: Any) -> Any:
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": text, "variables": variables}, timeout=30
        ).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def wait_for(self, what: Callable[[], _T | None]) -> _T:
        """What `what` returns, once it does."""
        deadline = time.monotonic() + SECONDS_TO_WAIT
        while time.monotonic() < deadline:
            assert self.process.poll() is None
            try:
                if found := what():
                    return found
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"{what} did not happen in {SECONDS_TO_WAIT} s")

    def runs(self) -> list[tuple[str, str]]:
        """Partition and status of each run."""
        data = self.query(
            "{ runsOrError { ... on Runs { results { status tags { key value } } } } }"
        )
        return sorted(
            (tag["value"], run["status"])
            for run in data["runsOrError"]["results"]
            for tag in run["tags"]
            if tag["key"] == "dagster/partition"
        )

    def start_sensor(self) -> None:
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "location.py",
            "sensorName": "octogen_catalog_sensor",
        }
        data = self.query(
            "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }",
            s=selector,
        )
        assert data["startSensor"]["__typename"] == "Sensor", data


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
            running.wait_for(lambda: httpx.get(f"{running.url}/server_info").is_success)
            yield running
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.timeout(400)
def test_the_sensor_snapshots_new_and_reindexed_catalogs(
    dagster: Dagster, shops: Sandbox, tmp_path: Path
) -> None:
    first = [("northpeak", "SUCCESS"), ("strada", "SUCCESS")]
    dagster.start_sensor()
    dagster.wait_for(lambda: dagster.runs() == first)
    for catalog, rows in (("northpeak", 230), ("strada", 120)):
        assert pl.read_parquet(tmp_path / f"snapshots/products/{catalog}.parquet").height == rows

    shops.touch("strada")
    dagster.wait_for(lambda: dagster.runs() == [*first, ("strada", "SUCCESS")])
