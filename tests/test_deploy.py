"""Tests of `deploy/`: its dagster.yaml runs with a daemon on PostgreSQL, and its values agree."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import polars as pl
import pytest
import yaml
from dagster._core.storage.event_log.base import PoolLimit

from octogen_dagster.assets.definition import POOL
from octogen_dagster.sandbox.server import Sandbox
from tests.needs import needs
from tests.postgresql import running_postgresql, server_program
from tests.processes import max_concurrent_runs, process_of

_T = TypeVar("_T")

ROOT = Path(__file__).parent.parent
INSTANCE = yaml.safe_load((ROOT / "deploy/dagster.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
VALUES = yaml.safe_load((ROOT / "deploy/values.yaml").read_text())
LIMIT = 1  # of the pool: what it does is the same as with the limit that is shipped
LOCATION = """
import os
import time
from pathlib import Path
from typing import Any
import dagster as dg
from octogen_dagster import (
    GrantedCatalogs,
    OctogenResource, ParquetSnapshotIOManager, build_catalog_sensor, build_products_asset,
    build_snapshot_checks, catalog_partitions,
)

class WaitingIOManager(ParquetSnapshotIOManager):
    def publication(self, *arguments: Any) -> Any:
        while not Path(os.environ["SIGNAL"]).exists():
            time.sleep(0.1)
        return super().publication(*arguments)

products = build_products_asset("products", partitions_def=catalog_partitions)
defs = dg.Definitions(
    assets=[products],
    asset_checks=build_snapshot_checks(products),
    sensors=[
        build_catalog_sensor(
            products, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
        )
    ],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(catalog_source=GrantedCatalogs()),
        "io_manager": WaitingIOManager(base_dir=dg.EnvVar("SNAPSHOTS")),
    },
)
"""
ROWS = 30
POLL_TIMEOUT = 150.0


class Deployment:
    """A Dagster instance and its running daemon."""

    def __init__(
        self, home: Path, instance: dg.DagsterInstance, daemon: subprocess.Popen[bytes]
    ) -> None:
        self.home = home
        self.instance = instance
        self._daemon = daemon

    def wait_for(self, probe: Callable[[], _T | None]) -> _T:
        """Call `probe` until it returns a true value, and return that.

        Raises:
            AssertionError: The daemon ended, or `POLL_TIMEOUT` passed.
        """
        deadline = time.monotonic() + POLL_TIMEOUT
        while time.monotonic() < deadline:
            assert self._daemon.poll() is None, self.log
            if found := probe():
                return found
            time.sleep(0.25)
        raise AssertionError(f"Nothing came within {POLL_TIMEOUT} s. Runs: {self.runs}\n{self.log}")

    @property
    def log(self) -> str:
        return (self.home / "daemon.log").read_text()

    @property
    def runs(self) -> Counter[str]:
        """The number of runs in each status."""
        return Counter(run.status.value for run in self.instance.get_runs())


def quick_instance() -> dict[str, Any]:
    """The shipped settings with a smaller pool, and with daemons that look more often."""
    settings: dict[str, Any] = yaml.safe_load((ROOT / "deploy/dagster.yaml").read_text())
    settings["concurrency"]["pools"]["default_limit"] = LIMIT
    settings["run_monitoring"]["poll_interval_seconds"] = 1
    settings["run_coordinator"]["config"] = {"dequeue_interval_seconds": 1}
    return settings


@pytest.fixture
def deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Deployment, Sandbox]]:
    """Yield an instance of the shipped dagster.yaml on PostgreSQL, and a sandbox of one catalog."""
    if not (server_program("initdb") and server_program("postgres")):
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(quick_instance()))
    (tmp_path / "location.py").write_text(LOCATION)
    command = [sys.executable, "-m", "dagster._daemon", "run", "-f", "location.py"]
    with (
        running_postgresql() as database,
        Sandbox(catalogs=1, products=ROWS, generation="seed") as shops,
    ):
        environment = {
            **database,
            **shops.environment,
            "DAGSTER_HOME": str(tmp_path),
            "SNAPSHOTS": str(tmp_path / "snapshots"),
            "SIGNAL": str(tmp_path / "signal"),
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with (
            dg.DagsterInstance.get() as instance,
            open(tmp_path / "daemon.log", "wb") as log,
            subprocess.Popen(
                command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
            ) as daemon,
        ):
            try:
                yield Deployment(tmp_path, instance, daemon), shops
            finally:
                # A code server that is asked to stop waits for its runs, which wait for the signal.
                os.killpg(daemon.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_runs_queue_for_the_pool_and_a_killed_one_is_retried(
    deployment: tuple[Deployment, Sandbox],
) -> None:
    deployed, shops = deployment
    instance = deployed.instance
    assert type(instance.run_storage).__name__ == "PostgresRunStorage"

    # Dagster learns the pool's limit from the first queued run and applies it to the next ones.
    deployed.wait_for(lambda: deployed.runs == {"STARTED": 1})
    (pool,) = instance.event_log_storage.get_pool_limits()
    assert pool == PoolLimit(name=POOL, limit=LIMIT, from_default=True)
    for number in range(LIMIT):
        shops.grant(f"shop-{number}")
    deployed.wait_for(lambda: deployed.runs == {"STARTED": LIMIT, "QUEUED": 1})
    deployed.wait_for(lambda: "is blocked by global concurrency limits" in deployed.log)

    victim = next(run for run in instance.get_runs() if run.status is dg.DagsterRunStatus.STARTED)
    os.kill(deployed.wait_for(lambda: process_of(instance, victim)), signal.SIGKILL)
    retry = deployed.wait_for(
        lambda: next((run for run in instance.get_runs() if run.parent_run_id), None)
    )
    assert retry.parent_run_id == victim.run_id
    assert retry.tags["dagster/partition"] == victim.tags["dagster/partition"]

    Path(os.environ["SIGNAL"]).touch()
    deployed.wait_for(lambda: deployed.runs == {"SUCCESS": LIMIT + 1, "FAILURE": 1})
    snapshots = pl.read_parquet(deployed.home / "snapshots/products/*.parquet")
    assert snapshots.height == ROWS * (LIMIT + 1)
    assert max_concurrent_runs(instance) == LIMIT

    # A run that a sensor requests names its asset, and evaluates its checks.
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
        assert run.asset_selection == {dg.AssetKey("products")}
        assert instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)


def test_the_helm_values_equal_the_instance_settings() -> None:
    daemon, concurrency = VALUES["dagsterDaemon"], VALUES["concurrency"]
    rendered = {
        "run_retries": _snake_case(daemon["runRetries"]),
        "concurrency": _snake_case(concurrency),
        "telemetry": VALUES["telemetry"],
    }
    assert rendered["concurrency"].pop("enabled") is True
    assert rendered == {name: INSTANCE[name] for name in rendered}

    monitoring = _snake_case(daemon["runMonitoring"])
    # The Kubernetes launcher can ask whether a pod lives, so its runs need no time limit.
    assert monitoring.pop("max_resume_run_attempts") == 0
    assert monitoring == {
        name: value
        for name, value in INSTANCE["run_monitoring"].items()
        if name != "max_runtime_seconds"
    }
    assert daemon["runCoordinator"]["type"] == INSTANCE["run_coordinator"]["class"]
    scheme = INSTANCE["storage"]["postgres"]["postgres_db"]["scheme"]
    assert VALUES["postgresql"]["postgresqlScheme"] == scheme


@pytest.mark.slow
@needs("dagster_k8s")
def test_a_pod_has_each_field_of_the_helm_values() -> None:
    from dagster_k8s.job import UserDefinedDagsterK8sConfig

    given = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    pods = {_snake_case_word(name): value for name, value in given.items()}
    # Raises if a pod has no such field.
    UserDefinedDagsterK8sConfig.from_dict(pods)  # type: ignore[no-untyped-call]


def test_the_chart_version_is_the_pinned_dagster_version() -> None:
    (chart,) = re.findall(r"--version (\S+)", (ROOT / "docs/deploying.md").read_text())
    assert f"dagster=={chart}\n" in (ROOT / "constraints.txt").read_text()


def test_each_compose_service_has_the_variables_of_the_instance() -> None:
    database = INSTANCE["storage"]["postgres"]["postgres_db"]
    needed = {value["env"] for name, value in database.items() if name != "scheme"}
    for name in ("daemon", "webserver"):
        service = COMPOSE["services"][name]
        assert needed - {*service["environment"]} == {"DAGSTER_POSTGRES_PASSWORD"}  # in .env
        assert Path(service["build"]["dockerfile"]) == Path("deploy/Dockerfile")
        mounted = [volume.split(":") for volume in service["volumes"]]
        assert all((ROOT / "deploy" / source).exists() for source, *_ in mounted if "/" in source)
        assert {source for source, *_ in mounted if "/" not in source} <= {*COMPOSE["volumes"]}
        program, *options = service["command"]
        subprocess.run([Path(sys.executable).with_name(program), *options, "--help"], check=True)


def test_no_password_or_key_is_in_the_files() -> None:
    database = INSTANCE["storage"]["postgres"]["postgres_db"]
    assert all(list(value) == ["env"] for name, value in database.items() if name != "scheme")
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    assert "postgresqlPassword" not in VALUES["postgresql"]
    (location,) = VALUES["dagster-user-deployments"]["deployments"]
    assert list(location["env"]) == ["OCTOGEN_SNAPSHOTS"]
    assert location["envSecrets"] == [{"name": "octogen"}]


def _snake_case(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {_snake_case_word(name): _snake_case(inner) for name, inner in value.items()}


def _snake_case_word(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
