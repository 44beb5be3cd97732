"""Each catalog's last version is read once, although the daemon is killed twenty times."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import dagster as dg
import httpx
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.processes import MORTAL_DAEMON, processes

CONFIG = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""
"""Runs are launched where they are submitted: a kill in another place may cut off a launch."""
WORKSPACE = """
load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: location.py}}}}]
"""
LOCATION = """
import dagster as dg
from octogen_dagster import (
    OctogenResource, ParquetSnapshotIOManager, build_catalog_sensor, build_products_asset,
    catalog_partitions,
)

products = build_products_asset("products", partitions_def=catalog_partitions)
defs = dg.Definitions(
    assets=[products],
    sensors=[
        build_catalog_sensor(
            products, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
        )
    ],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(base_url=dg.EnvVar("OCTOGEN_BASE_URL")),
        "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
    },
)
"""
CATALOGS = [f"shop-{number}" for number in range(6)]
STEPS = [
    ("add_dynamic_partitions", "after", 1),
    ("submit_run", "before", 1),
    ("submit_run", "after", 1),
    ("submit_run", "after", 2),
    ("update_tick", "before", 1),
    ("update_tick", "after", 1),
]
KILLS = 20
WAIT_SECONDS = 200.0


def listed(shops: Sandbox) -> dict[str, datetime]:
    """When each catalog was indexed."""
    headers = {"Authorization": f"Bearer {shops.api_key}"}
    found = httpx.get(f"{shops.base_url}/catalogs", headers=headers).json()
    return {each["catalog"]: moment(each["lastIndexedAt"]) for each in found}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def reads(instance: dg.DagsterInstance) -> list[tuple[str, datetime]]:
    """The catalog of each snapshot and the time at which it was indexed, the latest first."""
    records = instance.fetch_materializations(dg.AssetKey("products"), limit=1000).records
    made = [record.asset_materialization for record in records]
    return [
        (each.partition, moment(each.tags["dagster/data_version"]))
        for each in made
        if each and each.partition and each.tags
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_lose_and_double_no_version(tmp_path: Path) -> None:
    chosen = random.Random(20)
    (tmp_path / "dagster.yaml").write_text(CONFIG)
    (tmp_path / "location.py").write_text(LOCATION)
    (tmp_path / "daemon.py").write_text(MORTAL_DAEMON)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (tmp_path / "workspace.yaml").write_text(WORKSPACE.format(port=port))
    with (
        Sandbox(catalogs=dict.fromkeys(CATALOGS, 3), generation="seed") as shops,
        processes(tmp_path, shops.environment) as started,
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
    ):
        started.start_code_server(port)
        for number in range(KILLS):
            # A partition is added once; two runs are launched where two catalogs are due.
            step = STEPS[0] if not number else STEPS[1 + number % (len(STEPS) - 1)]
            daemon = started.start("daemon.py", *map(str, step), "run", "-w", "workspace.yaml")
            deadline = time.monotonic() + WAIT_SECONDS
            while daemon.poll() is None:
                assert time.monotonic() < deadline, step
                # Again, if the runs of older versions began so late that they read these.
                for catalog in chosen.sample(CATALOGS, 2) if number > 4 else ():
                    shops.touch(catalog)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(15)
            assert daemon.returncode == -signal.SIGKILL
        started.start("daemon.py", "submit_run", "never", "1", "run", "-w", "workspace.yaml")
        versions = listed(shops)
        deadline = time.monotonic() + WAIT_SECONDS
        while dict(reversed(reads(instance))) != versions:
            assert time.monotonic() < deadline, (reads(instance), versions)
            time.sleep(0.5)
        time.sleep(5)  # some more ticks
        read = Counter(reads(instance))
        statuses = Counter(run.status for run in instance.get_runs())
    print(f"{KILLS} kills, {statuses.total()} runs, {len(read)} versions of catalogs read")
    assert max(read.values()) == 1
    assert statuses.keys() == {dg.DagsterRunStatus.SUCCESS}
