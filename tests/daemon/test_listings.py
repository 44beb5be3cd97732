"""Listings become linked datasets in a real Dagster, whose daemon is killed between its steps."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.daemon.processes import MORTAL_DAEMON, processes

CONFIG = """
telemetry: {enabled: false}
run_coordinator:
  {module: dagster, class: QueuedRunCoordinator, config: {dequeue_interval_seconds: 1}}
"""
WORKSPACE = """
load_from: [{{grpc_server: {{host: {host}, port: {port}, location_name: location.py}}}}]
"""
LOCATION = """
import dagster as dg
from octogen_dagster import (
    AnalyticsHubResource, OctogenControlPlaneResource, OctogenSource, build_linked_datasets_asset,
    build_listing_sensor,
)

datasets = build_linked_datasets_asset(control_plane=True, grant_waits=(1,))
defs = dg.Definitions(
    assets=[datasets],
    sensors=[
        build_listing_sensor(
            OctogenSource(),
            datasets,
            minimum_interval_seconds=1,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    ],
    executor=dg.in_process_executor,
    resources={
        "analytics_hub": AnalyticsHubResource(project="my-project"),
        "octogen_control_plane": OctogenControlPlaneResource(principal="user:me@example.com"),
    },
)
"""
STEPS = [
    ("add_dynamic_partitions", "after"),
    ("submit_run", "after"),
    ("update_tick", "before"),  # when it has launched its runs
    ("update_tick", "after"),
]
RETRIED = dg.DagsterEventType.STEP_RESTARTED
POLL_SECONDS = 150.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(
        catalogs={"kiosk": 5, "northpeak": 5, "strada": 5}, hub=True, generation="seed"
    ) as running:
        yield running


@pytest.fixture
def daemon(
    tmp_path: Path, sandbox: Sandbox
) -> Iterator[Callable[[str, str], subprocess.Popen[bytes]]]:
    """Starts a daemon that kills itself before or after its first call of a method, or never.

    All daemons share one code server, which keeps running.
    """
    (tmp_path / "dagster.yaml").write_text(CONFIG)
    (tmp_path / "location.py").write_text(LOCATION)
    (tmp_path / "daemon.py").write_text(MORTAL_DAEMON)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    (tmp_path / "workspace.yaml").write_text(WORKSPACE.format(host=host, port=port))
    with processes(tmp_path, sandbox.environment) as started:
        started.start_code_server(port)
        yield lambda *step: started.start("daemon.py", *step, "1", "run", "-w", "workspace.yaml")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_daemon_that_is_killed_anywhere_loses_and_doubles_no_listing(
    daemon: Callable[[str, str], subprocess.Popen[bytes]], sandbox: Sandbox, tmp_path: Path
) -> None:
    hub = sandbox.hub
    running: Any = None

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:

        def wait_until(condition: Callable[[], bool], seen: Callable[[], object]) -> None:
            deadline = time.monotonic() + POLL_SECONDS
            while not condition():
                assert running.poll() is None
                if time.monotonic() > deadline:
                    raise AssertionError(f"not within {POLL_SECONDS} s; last seen: {seen()}")
                time.sleep(0.1)

        def runs() -> Counter[tuple[str, str]]:
            return Counter(
                (run.tags["dagster/partition"].rpartition(":")[2], run.status.value)
                for run in instance.get_runs()
            )

        def wait_for_runs(*expected: tuple[str, str]) -> None:
            wait_until(lambda: runs() == Counter(expected), runs)

        def ended_ticks() -> int:
            """The number of completed ticks; 0 until the sensor has started."""
            return sum(
                tick.is_completed
                for sensor in instance.all_instigator_state()
                for tick in instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id)
            )

        def wait_for_ticks(ticks: int) -> None:
            wanted = ended_ticks() + ticks
            wait_until(lambda: ended_ticks() >= wanted, ended_ticks)

        for number, (method, moment) in enumerate(STEPS):
            running = daemon(method, moment)
            if number == 0:
                wait_for_ticks(1)  # a tick with nothing to do
                hub.share("northpeak")
                hub.share("strada")
                hub.share("kiosk", granted=False)
            assert running.wait(POLL_SECONDS) == -signal.SIGKILL

        running = daemon("submit_run", "before")
        others = ("northpeak", "SUCCESS"), ("strada", "SUCCESS")
        wait_for_runs(("kiosk", "FAILURE"), *others)
        keys = instance.get_dynamic_partitions("octogen_listings")
        assert sorted(key.rpartition(":")[2] for key in keys) == ["kiosk", "northpeak", "strada"]
        (failed,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        log = instance.all_logs(failed.run_id)
        assert "Octogen has not granted access yet" in str(log)
        assert sum(record.dagster_event_type is RETRIED for record in log) == 1
        assert sorted(entry.catalog for entry in hub.subscriptions) == ["northpeak", "strada"]

        hub.grant_access("kiosk")
        assert running.wait(POLL_SECONDS) == -signal.SIGKILL
        running = daemon("submit_run", "never")
        wait_for_runs(("kiosk", "FAILURE"), ("kiosk", "SUCCESS"), *others)
        wait_for_ticks(2)
        wait_for_runs(("kiosk", "FAILURE"), ("kiosk", "SUCCESS"), *others)

    assert sorted(entry.catalog for entry in hub.subscriptions) == ["kiosk", "northpeak", "strada"]
    subscribed = [call.outcome for call in hub.calls if call.method == "SubscribeListing"]
    assert subscribed == ["OK", "OK", "OK"]
