"""Each catalog's last version is read once, and each listing linked once, through twenty kills."""

from __future__ import annotations

import random
import signal
from collections import Counter
from datetime import datetime
from pathlib import Path

import dagster as dg
import httpx
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.processes import POLL_SECONDS, dagster, wait_until

LOCATION = """
import dagster as dg
from octogen_dagster import *

RUNNING = {"default_status": dg.DefaultSensorStatus.RUNNING, "minimum_interval_seconds": 1}
products = build_products_asset("products", partitions_def=catalog_partitions)
datasets = build_linked_datasets_asset(control_plane=True, grant_waits=())
defs = dg.Definitions(
    assets=[products, datasets],
    sensors=[
        build_catalog_sensor(products, **RUNNING),
        build_listing_sensor(datasets, OctogenSource(), **RUNNING),
    ],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(
            base_url=dg.EnvVar("OCTOGEN_BASE_URL"), catalog_source=GrantedCatalogs()
        ),
        "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
        "analytics_hub": AnalyticsHubResource(project="my-project"),
        "octogen_control_plane": OctogenControlPlaneResource(principal="user:me@example.com"),
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


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def listed(shops: Sandbox) -> dict[str, datetime]:
    """When each catalog was indexed."""
    headers = {"Authorization": f"Bearer {shops.api_key}"}
    found = httpx.get(f"{shops.base_url}/catalogs", headers=headers).json()
    return {each["catalog"]: moment(each["lastIndexedAt"]) for each in found}


def reads(instance: dg.DagsterInstance) -> list[tuple[str, datetime]]:
    """The catalog and the index time of each read, the latest first.

    A read whose rows did not change keeps its data version and observes the later index time.
    """
    asset = dg.AssetKey("products")
    made = instance.fetch_materializations(asset, limit=1000).records
    observed = instance.fetch_observations(asset, limit=1000).records
    found: dict[tuple[str, str], datetime] = {}
    for record in (*made, *observed):
        event = record.asset_materialization or record.event_log_entry.asset_observation
        assert event
        assert event.partition
        assert event.tags
        catalog = event.partition.partition(" ")[0]
        version = event.tags["dagster/data_version"].rpartition(" ")[2]
        found[record.run_id, catalog] = moment(version)
    return [(catalog, version) for (_, catalog), version in found.items()]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_kills_lose_and_double_no_version_and_no_listing(tmp_path: Path) -> None:
    chosen = random.Random(20)
    shared: list[str] = []
    with (
        Sandbox(catalogs=dict.fromkeys(CATALOGS, 3), hub=True, generation="seed") as shops,
        dagster(tmp_path, LOCATION, shops.environment) as processes,
    ):
        instance = processes.instance
        processes.start_code_server()
        for number in range(KILLS):
            if not number % 6:  # a partition is added for a new listing
                shared.append(CATALOGS[len(shared)])
                shops.hub.share(shared[-1])
            daemon = processes.start_daemon(*STEPS[number % 6])
            rounds = 0
            while daemon.exitcode is None:
                assert rounds < POLL_SECONDS / 5, STEPS[number % 6]
                # Two runs are launched where two catalogs are due. They are due again, if the runs
                # of older versions began so late that they read these.
                for catalog in chosen.sample(CATALOGS, 2) if number else ():
                    shops.touch(catalog)
                daemon.join(5)
                rounds += 1
            assert daemon.exitcode == -signal.SIGKILL
        processes.start_daemon()
        versions = listed(shops)
        linked = Counter((catalog, "SUCCESS") for catalog in shared)
        wait_until(
            lambda: dict(reversed(reads(instance))) == versions and linked <= processes.runs(),
            lambda: (reads(instance), versions, processes.runs()),
        )
        processes.wait_for_rest()
        read = Counter(reads(instance))
        runs = processes.runs()
        subscribed = [call.outcome for call in shops.hub.calls if call.method == "SubscribeListing"]
    print(f"{KILLS} kills, {runs.total()} runs, {len(read)} versions of catalogs read")
    assert max(read.values()) == 1
    assert {status for _, status in runs} == {"SUCCESS"}
    assert subscribed == ["OK"] * len(shared)
