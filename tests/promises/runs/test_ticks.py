"""Every catalog that was indexed again and every new listing gets its run, once.

Dagster's own daemon makes the ticks and executes the runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from octogen_dagster import build_products_asset, build_snapshot_checks, catalog_partitions
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.ticks import Daemon, daemon

pytestmark = pytest.mark.slow

IMPORTS = """
import dagster as dg
import dagster._time
from octogen_dagster import *

RUNNING = dg.DefaultSensorStatus.RUNNING
NOW = dagster._time.get_current_datetime  # the test says how late it is, also to the runs
"""
CATALOGS = (
    IMPORTS
    + """
products = build_products_asset(
    "products", partitions_def={partitions}, retry_policy=None, _clock=NOW{policy}
)
defs = dg.Definitions(
    assets=[products],
    asset_checks={checks},
    sensors=[build_catalog_sensor(products, default_status=RUNNING, _clock=NOW)],
    executor=dg.in_process_executor,
    resources={{
        "octogen": OctogenResource(base_url=dg.EnvVar("OCTOGEN_BASE_URL"), attempts=1{source}),
        "io_manager": ParquetSnapshotIOManager(base_dir="{folder}/snapshots"),
    }},
)
"""
)
LISTINGS = (
    IMPORTS
    + """
datasets = build_linked_datasets_asset(control_plane=True, grant_waits=())
defs = dg.Definitions(
    assets=[datasets],
    sensors=[build_listing_sensor(datasets, OctogenSource(), default_status=RUNNING)],
    executor=dg.in_process_executor,
    resources={
        "analytics_hub": AnalyticsHubResource(project="my-project"),
        "octogen_control_plane": OctogenControlPlaneResource(principal="user:me@example.com"),
    },
)
"""
)


@pytest.fixture
def shops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    catalogs = {"northpeak": 3, "strada": 3}
    with Sandbox(catalogs=catalogs, hub=True, generation="seed") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def location(
    folder: Path,
    partitions: str = "catalog_partitions",
    source: str = "GrantedCatalogs()",
    checks: str = "[]",
    policy: str = "",
) -> str:
    return CATALOGS.format(
        folder=folder,
        partitions=partitions,
        source=f", catalog_source={source}",
        checks=checks,
        policy=f", backfill_policy={policy}" if policy else "",
    )


@pytest.fixture
def catalogs(shops: Sandbox, tmp_path: Path) -> Iterator[Daemon]:
    with daemon(tmp_path, location(tmp_path)) as running:
        yield running


@pytest.fixture
def listings(shops: Sandbox, tmp_path: Path) -> Iterator[Daemon]:
    with daemon(tmp_path, LISTINGS) as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize("partitions", ["catalog_partitions", 'catalog_days("2026-01-01")'])
def test_each_version_of_a_catalog_is_read_once(
    shops: Sandbox, tmp_path: Path, partitions: str
) -> None:
    with daemon(tmp_path, location(tmp_path, partitions)) as catalogs:
        catalogs.tick()
        assert catalogs.read() == Counter(["northpeak", "strada"])
        assert catalogs.tick().skip_reason == "No catalog was re-indexed (2 listed)."
        shops.touch("strada")
        catalogs.tick()
        assert catalogs.read() == Counter(["northpeak", "strada", "strada"])
        catalogs.forget()
        catalogs.tick()
        catalogs.tick()
        assert catalogs.read() == Counter(["northpeak", "strada", "strada"])


@pytest.mark.long
@pytest.mark.parametrize("partitions", ["catalog_partitions", 'catalog_days("2026-01-01")'])
def test_catalogs_share_a_run_and_one_that_failed_in_it_is_read_alone(
    shops: Sandbox, tmp_path: Path, partitions: str
) -> None:
    for key in ("kiosk", "zen"):
        shops.grant(key, products=3)
    keys = ["kiosk", "northpeak", "strada", "zen"]
    shops.inject(Fault("status", 403, path="/products/search", times=1))
    text = location(tmp_path, partitions, policy="dg.BackfillPolicy.multi_run(10)")
    with daemon(tmp_path, text) as catalogs:
        catalogs.tick()
        assert sum(catalogs.materialized("products").values()) == 3
        assert catalogs.tick().skip_reason == "No catalog was re-indexed (4 listed)."
        catalogs.tick()
        assert catalogs.materialized("products") == Counter(keys)
        assert len(catalogs.instance.get_runs()) == 2
        for key in keys:
            shops.touch(key)
        catalogs.tick()
        assert catalogs.materialized("products") == Counter(2 * keys)
        assert len(catalogs.instance.get_runs()) == 3


def test_a_requested_run_names_its_asset_and_answers_its_checks(
    shops: Sandbox, tmp_path: Path
) -> None:
    text = location(
        tmp_path, source='NamedCatalogs(keys=["strada"])', checks="build_snapshot_checks(products)"
    )
    with daemon(tmp_path, text) as catalogs:
        catalogs.tick()
        (run,) = catalogs.instance.get_runs()
        events = catalogs.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
    assert run.asset_selection == {dg.AssetKey("products")}
    checks = build_snapshot_checks(
        build_products_asset("products", partitions_def=catalog_partitions)
    )
    assert len(events) == sum(len(list(each.check_specs)) for each in checks)


def test_a_catalog_without_a_time_is_read_once(shops: Sandbox, tmp_path: Path) -> None:
    text = location(tmp_path, source='NamedCatalogs(keys=["strada"])')
    with daemon(tmp_path, text) as catalogs:
        catalogs.tick()
        catalogs.tick()
        catalogs.forget()
        catalogs.tick()
        assert catalogs.read() == Counter(["strada"])


@pytest.mark.long
def test_a_catalog_whose_run_failed_waits_longer_each_time_and_disturbs_no_other(
    catalogs: Daemon, shops: Sandbox
) -> None:
    shops.inject(Fault("status", 403, path="/products/search"))
    failed = []
    for _ in range(7):  # every five minutes
        catalogs.tick()
        failed.append(len(catalogs.instance.get_runs()) // 2)
    assert failed == [1, 1, 2, 2, 2, 2, 3]
    shops.clear_faults()
    shops.touch("strada")
    catalogs.tick()
    assert catalogs.read() == Counter(["strada"])
    catalogs.tick(hours=6)
    assert catalogs.read() == Counter(["northpeak", "strada"])


@pytest.mark.long
def test_a_service_that_is_not_there_fails_the_third_tick_in_a_row(
    catalogs: Daemon, shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = "Could not list catalogs"
    with monkeypatch.context() as nowhere:
        nowhere.setenv("OCTOGEN_BASE_URL", "http://127.0.0.1:1/v1")
        for _ in range(2):
            assert (catalogs.tick().skip_reason or "").startswith(f"{problem}; the next tick")
        for _ in range(2):
            assert f"{problem} in at least three ticks in a row. " in catalogs.failure()
    catalogs.tick()
    assert catalogs.read() == Counter(["northpeak", "strada"])


def test_a_service_that_is_busy_skips_each_tick(catalogs: Daemon, shops: Sandbox) -> None:
    shops.inject(Fault("status", 503, path="/catalogs", times=100))
    for _ in range(4):
        reason = catalogs.tick().skip_reason or ""
        assert reason.startswith("Could not list catalogs; the next tick")


@pytest.mark.long
def test_a_control_plane_that_is_not_there_fails_the_third_tick_in_a_row(
    listings: Daemon, shops: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    shops.hub.share("northpeak")
    problem = "The listings could not be read"
    with monkeypatch.context() as nowhere:
        nowhere.setenv("OCTOGEN_MCP_URL", "http://127.0.0.1:1/mcp/")
        nowhere.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "token")
        for _ in range(2):
            assert (listings.tick().skip_reason or "").startswith(f"{problem}; the next tick")
        assert f"{problem} in at least three ticks in a row. " in listings.failure()
    listings.tick()
    assert listings.read() == Counter(["northpeak"])
