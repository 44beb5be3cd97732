"""The demo: two days that Dagster plays by itself, in the UI and without one."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.demo.day import wait_for_day
from octogen_dagster.demo.run import run_demo
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.demo.command import command, environment, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CATALOG = "harbor-and-pine"
FOLLOWERS = ("octogen_products_brands", "octogen_products_changes")
ASSETS = ("octogen_catalogs", "octogen_products", *FOLLOWERS, "sweaters", "sweaters_details")


def run(folder: Path, *options: str, before: str = "") -> str:
    """Run the command in a folder to its end and return what it prints."""
    done = subprocess.run(
        command(*options, before=before),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def ask(url: str, query: str) -> Mapping[str, Any]:
    """Send a query to the GraphQL API of the UI."""
    request = urllib.request.Request(
        f"{url}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        data: Mapping[str, Any] = json.load(response)["data"]
    return data


def processes_of(folder: Path) -> Iterator[int]:
    """The processes whose environment names a folder."""
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in place.read_bytes():
                yield int(place.parent.name)
        except OSError:
            continue


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="it looks for processes in /proc")
def test_the_ui_shows_two_days_and_a_later_demo_goes_on(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command("--ui", "--port", str(port)),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout
        lines = []
        try:
            for line in demo.stdout:
                lines.append(line)
                if line.startswith("Done."):
                    break
            assert demo.poll() is None, "".join(lines)
            answer = ask(
                url,
                "{assetNodes {id} sensorsOrError(repositorySelector: {repositoryLocationName: "
                '"octogen_dagster.demo.definitions", repositoryName: "__repository__"}) '
                "{... on Sensors {results {name sensorState {status}}}}}",
            )
        finally:
            demo.send_signal(signal.SIGINT)
        lines += demo.stdout.readlines()
    assert demo.returncode == 0
    assert not list(processes_of(tmp_path))

    output = "".join(lines)
    assert f"The Dagster UI runs at {url} until Ctrl-C stops everything." in output
    assert "DEBUG" not in output
    assert "WARNING" not in output
    assert "Warning" not in output
    assert "STATE_ACTIVE" in output
    assert "my-project.octogen_harbor_and_pine.products_current_v1" in output
    assert f"{url}/assets/octogen_products?view=checks" in output
    assert len(answer["assetNodes"]) == len(ASSETS) + 1
    assert {
        sensor["name"]: sensor["sensorState"]["status"]
        for sensor in answer["sensorsOrError"]["results"]
    } == dict.fromkeys(
        ("octogen_automation", "octogen_catalog_sensor", "octogen_listing_sensor"), "RUNNING"
    )

    folder = tmp_path / "octogen-demo"
    with dg.DagsterInstance.from_config(str(folder / "dagster_home")) as instance:
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert all(run.remote_job_origin for run in runs)
        materialized = Counter(
            {
                asset: len(instance.fetch_materializations(dg.AssetKey(asset), limit=100).records)
                for asset in (*ASSETS, "octogen_linked_datasets")
            }
        )
        results = [
            entry.dagster_event.asset_check_evaluation_data
            for run in runs
            for entry in instance.all_logs(
                run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            )
            if entry.dagster_event
        ]
        failed = [
            (result.check_name, result.asset_key.to_user_string(), result.partition)
            for result in results
            if not result.passed
        ]
    daily = dict.fromkeys(("octogen_products", *FOLLOWERS), 2)
    assert {asset: materialized[asset] for asset in daily} == daily
    assert all(materialized[asset] >= 1 for asset in ASSETS)
    assert materialized["octogen_linked_datasets"] == 1
    assert failed == [("prices", "octogen_products", CATALOG)]
    # Products have two days. A check that ran twice on a day has one result, as `fresh` may.
    of_rows = {
        (result.asset_key.to_user_string(), result.check_name)
        for result in results
        if result.check_name != "fresh"
    }
    printed = re.search(r"Checks: (\d+) passed, 1 failed\.", output)
    assert printed
    assert int(printed[1]) + 1 >= sum(1 + (asset == "octogen_products") for asset, _ in of_rows)
    assert f"prices: octogen_products, partition '{CATALOG}': " in output

    changes = pl.read_parquet(folder / "snapshots/octogen_products_changes/*.parquet")
    assert set(changes["change"]) == {"appeared", "disappeared", "changed"}

    later = run(tmp_path)
    assert "Day 3: 4 of 4 assets and partitions materialized" in later
    assert "Day 4: 3 of 3 assets and partitions materialized" in later
    assert "STATE_ACTIVE" in later
    assert f"Snapshots: {folder / 'snapshots'}" in later
    assert "octogen-dagster demo --ui" in later


def test_a_failed_run_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(catalogs: list[str], products: int, generation: str, hub: bool = False) -> Sandbox:
        if hub:
            raise ImportError('the hub of the sandbox needs mcp: pip install "octogen-dagster"')
        fault = Fault("status", 403, path="/products/search")
        return Sandbox(catalogs=catalogs, products=products, generation="current", faults=[fault])

    monkeypatch.setattr("octogen_dagster.demo.run.Sandbox", broken)
    impatient = functools.partial(wait_for_day, max_quiet_seconds=20)
    monkeypatch.setattr("octogen_dagster.demo.run.wait_for_day", impatient)
    succeeded = run_demo(tmp_path, catalogs=1, products=3, ui_port=None)
    assert not succeeded
    output = capsys.readouterr().out
    assert f"{CATALOG} failed:" in output
    assert "403" in output
    assert "No linked datasets: the hub of the sandbox needs mcp: pip install" in output
    assert f"octogen_products {CATALOG} was not materialized." in output
    assert "DAGSTER_HOME" not in os.environ


def test_a_port_that_is_taken_ends_the_demo_before_it_writes_anything(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            command("--ui", "--port", port),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 1
    assert f"Port {port} cannot be used for the Dagster UI" in done.stderr
    assert not list(tmp_path.iterdir())
