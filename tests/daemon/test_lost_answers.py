"""Listings become linked datasets although answers between Dagster's processes are lost."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster._core.scheduler.instigation import TickStatus
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sharing.hub import EMULATOR_VARIABLE
from tests.daemon.processes import POLL_SECONDS, Dagster, dagster, kill, wait_until
from tests.proxy import Proxy
from tests.servers.google import EXCHANGE, PROJECT, Google

LOCATION = f"""
import os
import dagster as dg
from octogen_dagster import *

with open("pids", "a") as pids:  # of the code server and of each run
    print(os.getpid(), file=pids)
datasets = build_linked_datasets_asset()
defs = dg.Definitions(
    assets=[datasets],
    sensors=[
        build_listing_sensor(
            datasets,
            ExchangeSource({EXCHANGE!r}),
            minimum_interval_seconds=1,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    ],
    executor=dg.in_process_executor,
    resources={{"analytics_hub": AnalyticsHubResource(project={PROJECT!r})}},
)
"""
LISTINGS = ["kiosk", "northpeak", "strada"]

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def google() -> Google:
    return Google()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """The proxy between the daemon and the code server."""
    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def processes(tmp_path: Path, google: Google, proxy: Proxy) -> Iterator[Dagster]:
    """An instance whose sensor reads the exchange."""
    with (
        google.running() as address,
        dagster(tmp_path, LOCATION, {EMULATOR_VARIABLE: address}, proxy) as processes,
    ):
        yield processes


def share(google: Google, *listings: str) -> None:
    google.listings = [ah.Listing(name=f"{EXCHANGE}/listings/{each}") for each in listings]


def assert_settled(processes: Dagster, expected: Counter[tuple[str, str]]) -> None:
    """Assert that the runs become these, and stay these for two more ticks."""
    wait_until(lambda: processes.runs() == expected, processes.runs)
    processes.wait_for_rest()
    assert processes.runs() == expected


@pytest.mark.parametrize("is_server_killed", [False, True])
def test_a_tick_whose_answer_is_lost_loses_and_doubles_no_listing(
    is_server_killed: bool, google: Google, proxy: Proxy, processes: Dagster
) -> None:
    def lose_first_answer(method: str) -> None:
        if method == "ListListings":
            proxy.cuts_next = not proxy.has_cut.is_set()

    share(google, *LISTINGS)
    google.on_answer = lose_first_answer
    server = processes.start_code_server()
    processes.start_daemon()
    assert proxy.has_cut.wait(POLL_SECONDS)
    if is_server_killed:
        kill(server)
        processes.start_code_server()
    wait_until(
        lambda: any(processes.ticks(TickStatus.FAILURE)),
        lambda: processes.ticks(TickStatus.FAILURE),
    )
    assert_settled(processes, Counter((each, "SUCCESS") for each in LISTINGS))
    assert len(google.requests) == google.calls.count("SubscribeListing") == len(LISTINGS)


def test_a_run_that_is_killed_before_it_hears_of_its_subscription_is_retried(
    google: Google, processes: Dagster, tmp_path: Path
) -> None:
    def kill_the_run(method: str) -> None:
        if method == "SubscribeListing":
            os.kill(int((tmp_path / "pids").read_text().split()[-1]), signal.SIGKILL)

    share(google, "kiosk")
    google.on_answer = kill_the_run
    processes.start_code_server()
    processes.start_daemon()
    assert_settled(processes, Counter([("kiosk", "FAILURE"), ("kiosk", "SUCCESS")]))
    assert len(google.requests) == google.calls.count("SubscribeListing") == 1
