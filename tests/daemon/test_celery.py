"""`deploy/celery/` on PostgreSQL and Redis: runs end although their Celery worker is killed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from redis.exceptions import ConnectionError as RedisConnectionError

from octogen_dagster.bigquery.partitions import listing_partition_key
from tests.needs import needs
from tests.postgresql import running_postgresql, server_program
from tests.processes import Processes, kill, max_concurrent_runs, process_of, processes
from tests.promises.paged_service import PagedService, TokenBucket
from tests.redis import running_redis
from tests.servers.buckets import ENVIRONMENT, S3Bucket, moto
from tests.servers.google import LISTING
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, PROJECT, OctogenServer

pytestmark = needs("dagster_celery")

SHIPPED = Path(__file__).parents[2] / "deploy/celery"
LOCATION = """
import os
import dagster as dg
from octogen_dagster import (
    GrantedCatalogs, OctogenResource, ParquetSnapshotIOManager, ProductSearch, build_catalog_sensor,
    build_products_asset, catalog_partitions,
)

s3 = os.environ.get("S3_URL")
options = {
    "aws_access_key_id": dg.EnvVar("STORE_KEY"),
    "aws_secret_access_key": dg.EnvVar("STORE_SECRET"),
    "aws_endpoint_url": s3,
    "aws_allow_http": True,
    "aws_region": "us-east-1",
}
products = build_products_asset(
    "products", ProductSearch(page_size=25), partitions_def=catalog_partitions
)
defs = dg.Definitions(
    assets=[products],
    sensors=[
        build_catalog_sensor(
            products, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
        )
    ],
    executor=dg.in_process_executor,
    resources={
        "octogen": OctogenResource(catalog_source=GrantedCatalogs()),
        "io_manager": ParquetSnapshotIOManager(
            base_dir=dg.EnvVar("SNAPSHOTS"), storage_options=options if s3 else {}
        ),
    },
)
"""
POOL_LIMIT = 4
REQUESTS_A_MINUTE = 360
HELD_AFTER = 30
"""The page after which the largest catalog is held until its worker is killed."""
LARGE = "shop-12"
CATALOGS = {f"shop-{number:02}": 25 + 3 * number for number in range(40)} | {LARGE: 1500}
MAX_AGAIN = 26
"""Two segments of twelve pages, and two pages that are compared."""
WAIT_SECONDS = 240.0


needs_servers = pytest.mark.skipif(
    not (server_program("postgres") and shutil.which("redis-server")),
    reason="needs PostgreSQL and Redis: apt-get install postgresql redis-server",
)


def wait_for(probe: Callable[[], object], folder: Path) -> None:
    """Wait until `probe` returns a true value; show the log of the processes if it never does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not probe():
        assert time.monotonic() < deadline, (folder / "log").read_text()[-20_000:]
        time.sleep(0.2)


def ship_modules(folder: Path) -> None:
    for module in SHIPPED.glob("*.py"):
        shutil.copy(module, folder)


def command_of(unit: str) -> list[str]:
    """The command of a shipped unit of systemd, for this interpreter."""
    (line,) = re.findall("^ExecStart=(.+)", (SHIPPED / unit).read_text(), re.MULTILINE)
    program, *arguments = shlex.split(line)
    return [str(Path(sys.executable).with_name(Path(program).name)), *arguments]


Files = Callable[[], dict[str, bytes]]


@contextlib.contextmanager
def shared_folder(folder: Path) -> Iterator[tuple[dict[str, str], Files]]:
    """Yield the variables of a location with snapshots in a folder, and what reads its files."""
    snapshots = folder / "snapshots"

    def files() -> dict[str, bytes]:
        found = [path for path in snapshots.rglob("*") if path.is_file()]
        # A half-written file of a killed process is removed after an hour.
        left = [path for path in found if not path.name.endswith(".unfinished")]
        return {path.name: path.read_bytes() for path in left}

    yield {"SNAPSHOTS": str(snapshots)}, files


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[tuple[dict[str, str], Files]]:
    """Yield the variables of a location with snapshots in S3, and what reads its objects."""
    with moto() as proxy:
        made = S3Bucket(proxy)
        variables = {
            **ENVIRONMENT,
            "S3_URL": f"http://127.0.0.1:{proxy.port}",
            "SNAPSHOTS": made.base_dir,
            "TMPDIR": str(folder),
        }
        yield variables, lambda: {Path(name).name: made.get(name) for name in made.names()}


class Fleet:
    """Two workers and a daemon on one instance, which read the catalogs of a service."""

    def __init__(
        self, instance: dg.DagsterInstance, started: Processes, service: PagedService, files: Files
    ) -> None:
        self.instance, self.service, self.files = instance, service, files
        self._started = started
        instance.event_log_storage.set_concurrency_slots("octogen", POOL_LIMIT)
        self._workers = {name: self.start_worker(name) for name in ("one@test", "two@test")}
        started.start(*command_of("octogen-daemon.service"))

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        command = command_of("octogen-worker.service")
        return self._started.start(*command, "--concurrency", "2", "--hostname", name)

    def kill_worker_of(self, catalog: str) -> str:
        """Kill the worker that reads a catalog, with all of its processes; return its name."""
        (run,) = self.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": catalog}))
        process = process_of(self.instance, run)
        assert process
        group = os.getpgid(process)
        (name,) = [name for name, worker in self._workers.items() if worker.pid == group]
        kill(self._workers[name])
        return name

    @property
    def succeeded(self) -> set[str]:
        """The catalogs of which a run succeeded, once no other run is in progress."""
        runs = self.instance.get_runs()
        if any(not run.is_finished for run in runs):
            return set()
        return {run.tags["dagster/partition"] for run in runs if run.is_success}


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    settings: dict[str, Any] = yaml.safe_load((SHIPPED / "dagster.yaml").read_text())
    settings["run_monitoring"]["poll_interval_seconds"] = 5
    settings["run_coordinator"]["config"] = {"dequeue_interval_seconds": 1}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "definitions.py").write_text(LOCATION)
    (tmp_path / "workspace.yaml").write_text("load_from: [{python_file: definitions.py}]")
    ship_modules(tmp_path)
    service = PagedService(CATALOGS, limit=TokenBucket(REQUESTS_A_MINUTE), last_page=HELD_AFTER)
    with (
        running_postgresql() as database,
        running_redis() as redis,
        service.running(),
        request.param(tmp_path) as (variables, files),
    ):
        environment = {
            **database,
            **variables,
            "DAGSTER_HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path),
            "DAGSTER_CELERY_REDIS": redis,
            "OCTOGEN_BASE_URL": service.base_url,
            "OCTOGEN_PLATFORM_API_KEY": service.api_key,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.get() as instance, processes(tmp_path, environment) as started:
            yield Fleet(instance, started, service, files)


def test_the_instance_is_that_of_one_server_but_for_its_launcher_and_its_times() -> None:
    from celery_launcher import MAX_MISSES, MonitoredCeleryRunLauncher

    instance = yaml.safe_load((SHIPPED / "dagster.yaml").read_text())
    of_one_server = yaml.safe_load((SHIPPED.parent / "dagster.yaml").read_text())
    launcher, monitoring = instance.pop("run_launcher"), instance.pop("run_monitoring")
    of_one_server.pop("run_monitoring")
    assert instance == of_one_server
    assert launcher["module"] == MonitoredCeleryRunLauncher.__module__
    assert launcher["class"] == MonitoredCeleryRunLauncher.__name__
    # A lost run is noticed so that another begins within two minutes.
    interval = monitoring["poll_interval_seconds"]
    assert MAX_MISSES * interval <= 100
    assert monitoring["start_timeout_seconds"] + interval <= 100
    # A worker that is stopped answers no more: its runs end before they count as lost.
    unit = (SHIPPED / "octogen-worker.service").read_text()
    (stopping,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stopping) < (MAX_MISSES - 1) * interval


@pytest.mark.long
@needs_servers
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("fleet", "is_restarted"), [(bucket, False), (shared_folder, True)], indirect=["fleet"]
)
def test_forty_catalogs_are_whole_although_a_worker_is_killed(
    fleet: Fleet, is_restarted: bool, tmp_path: Path
) -> None:
    service, limit = fleet.service, fleet.service.limit
    assert limit
    wait_for(lambda: HELD_AFTER + 1 in service.pages_of(LARGE), tmp_path)
    killed = fleet.kill_worker_of(LARGE)
    limit.is_crowded = True  # `OctogenResource` leaves a fifth to others: each run must wait
    service.release()
    if is_restarted:  # by systemd, under its old name
        fleet.start_worker(killed)
    wait_for(lambda: fleet.succeeded == CATALOGS.keys(), tmp_path)

    snapshots = {name: pl.read_parquet(content) for name, content in fleet.files().items()}
    assert {name: frame["uuid"].n_unique() for name, frame in snapshots.items()} == {
        f"{catalog}.parquet": products for catalog, products in CATALOGS.items()
    }
    assert len(service.searches) - len(set(service.searches)) <= MAX_AGAIN
    assert max_concurrent_runs(fleet.instance) <= POOL_LIMIT
    records = fleet.instance.fetch_materializations(dg.AssetKey("products"), limit=1000).records
    waits = [
        each.asset_materialization
        and each.asset_materialization.metadata.get("octogen/rate_limit_wait_seconds")
        for each in records
    ]
    assert any(waits)
    assert limit.refused <= 0.01 * limit.asked

    lost = {run.run_id for run in fleet.instance.get_runs() if run.status.value == "FAILURE"}
    retried = {run.parent_run_id for run in fleet.instance.get_runs() if run.parent_run_id}
    assert lost == retried != set()


WAITING_APP = """
import os, signal, time
from celery import Celery
import celery_launcher

app = Celery("app", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.task_default_queue = "dagster"

@app.task(track_started=True)
def wait():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
"""
LOST = ["RUNNING", "RUNNING", "NOT_FOUND"]


class WaitingRun:
    """A run whose Celery task waits in a worker."""

    def __init__(self, folder: Path, started: Processes, redis: str) -> None:
        from celery_launcher import MonitoredCeleryRunLauncher

        self._folder, self._started = folder, started
        self.launcher = MonitoredCeleryRunLauncher(
            "dagster", broker=redis, backend=redis, _stop_timeout=0.1
        )
        self.worker = self.start_worker()
        self.task = self.launcher.celery.send_task("app.wait", queue="dagster")
        self.run = dg.DagsterRun(
            job_name="job",
            tags={"dagster-celery/task_id": self.task.id},
            status=dg.DagsterRunStatus.STARTED,
        )
        wait_for(lambda: self.task.state == "STARTED", folder)

    def start_worker(self) -> subprocess.Popen[bytes]:
        command = ("-m", "celery", "-A", "app", "worker", "-c", "1", "-n", "w@test")
        worker = self._started.start(*command)
        self.wait_for_answer()
        return worker

    def wait_for_answer(self) -> None:
        wait_for(lambda: self.launcher.celery.control.ping(["w@test"]), self._folder)

    def checks(self, number: int) -> list[str]:
        """The statuses by so many checks."""
        check = self.launcher.check_run_worker_health
        return [check(self.run).status.value for _ in range(number)]


@pytest.fixture
def broker() -> Iterator[contextlib.ExitStack]:
    """Yield what stops the broker."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def waiting(tmp_path: Path, broker: contextlib.ExitStack) -> Iterator[WaitingRun]:
    (tmp_path / "app.py").write_text(WAITING_APP)
    redis = broker.enter_context(running_redis())
    with processes(tmp_path, {"REDIS": redis, "PYTHONPATH": str(SHIPPED)}) as started:
        yield WaitingRun(tmp_path, started, redis)


@pytest.mark.long
@needs_servers
@pytest.mark.slow
def test_a_run_is_lost_after_three_checks_in_which_no_worker_executes_it(
    waiting: WaitingRun, broker: contextlib.ExitStack
) -> None:
    assert waiting.checks(4) == ["RUNNING"] * 4

    # A worker that hangs for a while is not lost, and its misses are forgotten.
    for _ in range(2):
        waiting.worker.send_signal(signal.SIGSTOP)
        assert waiting.checks(2) == ["RUNNING"] * 2
        waiting.worker.send_signal(signal.SIGCONT)
        waiting.wait_for_answer()
        assert waiting.checks(1) == ["RUNNING"]

    # Nor is one whose task the result backend forgot, as a Redis does that is restarted.
    waiting.task.forget()
    assert waiting.task.state == "PENDING"
    assert waiting.checks(4) == ["RUNNING"] * 4

    kill(waiting.worker)
    assert waiting.checks(3) == LOST
    waiting.start_worker()  # it has the name of the one that died, and not its task
    assert waiting.checks(3) == LOST

    # A broker that is down says nothing of a worker.
    broker.close()
    for _ in range(3):
        with pytest.raises(RedisConnectionError):
            waiting.checks(1)


@pytest.mark.long
@needs_servers
@pytest.mark.slow
def test_a_run_whose_task_nobody_noted_is_lost_too(waiting: WaitingRun) -> None:
    # The daemon died after it had sent the task, and before it stored the task's id.
    waiting.run = waiting.run.with_tags({})
    assert waiting.checks(3) == LOST


@pytest.mark.long
@needs_servers
@pytest.mark.slow
def test_a_run_that_does_not_end_when_it_is_terminated_is_killed(
    waiting: WaitingRun, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    instance.add_run(waiting.run)
    waiting.launcher.register_instance(instance)
    assert waiting.launcher.terminate(waiting.run.run_id)

    def run() -> dg.DagsterRun:
        found = instance.get_run_by_id(waiting.run.run_id)
        assert found
        return found

    wait_for(lambda: run().status is dg.DagsterRunStatus.CANCELED, tmp_path)
    assert not waiting.launcher.terminate(waiting.run.run_id)
    inspect = waiting.launcher.celery.control.inspect(["w@test"])
    wait_for(lambda: inspect.query_task(waiting.task.id) == {"w@test": {}}, tmp_path)


LINKED = f"""
import os
import dagster as dg
from octogen_dagster import *

datasets = build_linked_datasets_asset(control_plane=True)
resources = {{
    "analytics_hub": AnalyticsHubResource(project={PROJECT!r}, endpoint="127.0.0.1:1"),
    "octogen_control_plane": OctogenControlPlaneResource(principal={PRINCIPAL!r}),
}}
jobs = [dg.define_asset_job("linked", [datasets])]
executor = dg.in_process_executor if os.environ["EXECUTOR"] else None
defs = dg.Definitions([datasets], jobs=jobs, resources=resources, executor=executor)
"""


class LinkedRun:
    """A run of linked datasets in a worker of the shipped app, which refreshes its login."""

    def __init__(self, folder: Path, server: OctogenServer, executor: str = "in_process") -> None:
        self.spent, self.released = threading.Event(), threading.Event()
        self._folder, self._server, self._executor = folder, server, executor
        self.file = folder / "refresh"
        self.file.write_text(server.refresh_token)

    def answer(self, request: Any) -> Iterator[bytes]:
        parts = self._server._token(request)
        self.spent.set()
        assert self.released.wait(WAIT_SECONDS)
        yield from parts

    @contextlib.contextmanager
    def running(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
        key = listing_partition_key(LISTING)
        settings = yaml.safe_load((SHIPPED / "dagster.yaml").read_text())
        kept: dict[str, Any] = {name: settings[name] for name in ("run_launcher", "telemetry")}
        # Without a queue, there need be no daemon.
        kept["run_coordinator"] = {
            "module": "dagster._core.run_coordinator",
            "class": "DefaultRunCoordinator",
        }
        (self._folder / "dagster.yaml").write_text(yaml.safe_dump(kept))
        (self._folder / "definitions.py").write_text(LINKED)
        ship_modules(self._folder)
        self._server.fail("token", self.answer)
        with running_redis() as redis:
            environment = {
                **self._server.environment,
                "DAGSTER_HOME": str(self._folder),
                "PYTHONPATH": str(self._folder),
                "DAGSTER_CELERY_REDIS": redis,
                "EXECUTOR": self._executor,
                "OCTOGEN_MCP_REFRESH_TOKEN_FILE": str(self.file),
                "OCTOGEN_MCP_CLIENT_ID": CLIENT,
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            with (
                dg.DagsterInstance.get() as instance,
                processes(self._folder, environment) as started,
            ):
                instance.add_dynamic_partitions("octogen_listings", [key])
                started.start(*command_of("octogen-worker.service"), "--concurrency", "1")
                tags = f'{{"dagster/partition": "{key}"}}'
                launch = ["dagster", "job", "launch", "-f", "definitions.py", "-j", "linked"]
                started.start("-m", *launch, "--tags", tags)
                wait_for(instance.get_runs, self._folder)
                try:
                    yield instance
                finally:
                    self.released.set()


@pytest.fixture
def octogen() -> Iterator[OctogenServer]:
    with OctogenServer() as server:
        yield server


@pytest.mark.long
@needs_servers
@pytest.mark.slow
def test_a_run_that_is_terminated_stores_the_login_that_octogen_replaces(
    octogen: OctogenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = LinkedRun(tmp_path, octogen)
    with linked.running(monkeypatch) as instance:
        assert linked.spent.wait(60), (tmp_path / "log").read_text()
        (run,) = instance.get_runs()
        assert instance.run_launcher.terminate(run.run_id)
        log = tmp_path / "log"
        wait_for(lambda: "Waiting for the token endpoint" in log.read_text(), tmp_path)
        linked.released.set()
        wait_for(lambda: instance.get_runs()[0].is_finished, tmp_path)
    assert linked.file.read_text().strip() == octogen.refresh_token != "refresh-secret-0"
    assert (octogen.refusals, octogen.count("token")) == (0, 1)


@pytest.mark.long
@needs_servers
@pytest.mark.slow
def test_a_run_whose_executor_starts_processes_is_refused(
    octogen: OctogenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LinkedRun(tmp_path, octogen, executor="").running(monkeypatch) as instance:
        log = tmp_path / "log"
        wait_for(lambda: "executor=dg.in_process_executor" in log.read_text(), tmp_path)
        (run,) = instance.get_runs()
        assert run.status is not dg.DagsterRunStatus.STARTED
    assert octogen.calls == []
