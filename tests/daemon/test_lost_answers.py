"""Listings become linked datasets although answers between Dagster's processes are lost."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from octogen_dagster.sharing.hub import EMULATOR_VARIABLE
from tests.daemon.exchange import NAME, Exchange
from tests.daemon.processes import Processes, kill, processes
from tests.proxy import Proxy

CONFIG = """
telemetry: {enabled: false}
run_coordinator:
  {module: dagster, class: QueuedRunCoordinator, config: {dequeue_interval_seconds: 1}}
run_retries: {enabled: true, max_retries: 1}
"""
WORKSPACE = """
load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: location.py}}}}]
"""
LOCATION = f"""
import os
import dagster as dg
from octogen_dagster import (
    AnalyticsHubResource, ExchangeSource, build_linked_datasets_asset, build_listing_sensor
)

with open("pids", "a") as pids:  # of the code server and of each run
    print(os.getpid(), file=pids)
datasets = build_linked_datasets_asset()
defs = dg.Definitions(
    assets=[datasets],
    sensors=[
        build_listing_sensor(
            ExchangeSource({NAME!r}),
            datasets,
            minimum_interval_seconds=1,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    ],
    executor=dg.in_process_executor,
    resources={{"analytics_hub": AnalyticsHubResource(project="my-project")}},
)
"""
DAEMON = """
from dagster._daemon import sensor
from dagster._daemon.cli import main

sensor.MIN_INTERVAL_LOOP_TIME = 1
main()
"""
LISTINGS = ["kiosk", "northpeak", "strada"]
POLL_SECONDS = 150.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text(CONFIG)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """The proxy between the daemon and the code server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with Proxy() as proxy:
        proxy.upstream = port
        yield proxy


@pytest.fixture
def dagster(
    tmp_path: Path, exchange: Exchange, instance: dg.DagsterInstance, proxy: Proxy
) -> Iterator[Processes]:
    """The processes of an instance whose sensor reads the exchange."""
    (tmp_path / "location.py").write_text(LOCATION)
    (tmp_path / "daemon.py").write_text(DAEMON)
    (tmp_path / "workspace.yaml").write_text(WORKSPACE.format(port=proxy.port))
    with (
        exchange.running() as address,
        processes(tmp_path, {EMULATOR_VARIABLE: address}) as started,
    ):
        yield started


def wait_until(condition: Callable[[], bool], seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + POLL_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {POLL_SECONDS} s; last seen: {seen()}"
        time.sleep(0.1)


def runs(instance: dg.DagsterInstance) -> Counter[tuple[str, str]]:
    return Counter(
        (run.tags["dagster/partition"].rpartition(":")[2], run.status.value)
        for run in instance.get_runs()
    )


def ticks(instance: dg.DagsterInstance) -> Counter[TickStatus]:
    return Counter(
        tick.status
        for sensor in instance.all_instigator_state()
        for tick in instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id)
    )


def assert_settled(instance: dg.DagsterInstance, expected: Counter[tuple[str, str]]) -> None:
    """Assert that the runs become these, and stay these for two more ticks."""
    wait_until(lambda: runs(instance) == expected, lambda: runs(instance))
    rested = ticks(instance)[TickStatus.SKIPPED]
    wait_until(lambda: ticks(instance)[TickStatus.SKIPPED] >= rested + 2, lambda: ticks(instance))
    assert runs(instance) == expected


@pytest.mark.parametrize("is_server_killed", [False, True])
def test_a_tick_whose_answer_is_lost_loses_and_doubles_no_listing(
    is_server_killed: bool,
    exchange: Exchange,
    instance: dg.DagsterInstance,
    proxy: Proxy,
    dagster: Processes,
) -> None:
    def lose_first_answer() -> None:
        proxy.cuts_next = not proxy.has_cut.is_set()

    exchange.listings = LISTINGS
    exchange.on_list = lose_first_answer
    server = dagster.start_code_server(proxy.upstream)
    dagster.start("daemon.py", "run", "-w", "workspace.yaml")
    assert proxy.has_cut.wait(POLL_SECONDS)
    if is_server_killed:
        kill(server)
        dagster.start_code_server(proxy.upstream)
    wait_until(lambda: TickStatus.FAILURE in ticks(instance), lambda: ticks(instance))

    assert_settled(instance, Counter((each, "SUCCESS") for each in LISTINGS))
    assert sorted(exchange.subscribed) == LISTINGS
    assert exchange.refused == []


def test_a_run_that_is_killed_before_it_hears_of_its_subscription_is_retried(
    exchange: Exchange,
    instance: dg.DagsterInstance,
    proxy: Proxy,
    dagster: Processes,
    tmp_path: Path,
) -> None:
    def kill_the_run(listing: str) -> None:
        os.kill(int((tmp_path / "pids").read_text().split()[-1]), signal.SIGKILL)

    exchange.on_subscribe = kill_the_run
    exchange.listings = ["kiosk"]
    dagster.start_code_server(proxy.upstream)
    dagster.start("daemon.py", "run", "-w", "workspace.yaml")

    assert_settled(instance, Counter([("kiosk", "FAILURE"), ("kiosk", "SUCCESS")]))
    assert exchange.subscribed == ["kiosk"]
    assert exchange.refused == []
