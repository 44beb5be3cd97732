"""A daemon plays the days of the demo, which says what is there, and leaves nothing running."""

from __future__ import annotations

import os
import runpy
import shlex
import signal
import socket
import uuid
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest
from click.testing import CliRunner

from octogen_dagster import scan_history
from octogen_dagster.cli.main import main
from octogen_dagster.demo.processes import ui_command
from tests.demo.command import ends_all, processes_of, run, running_ui

CATALOGS = ("harbor-and-pine", "northpeak")
EMULATOR = "ANALYTICS_HUB_EMULATOR_HOST"
LOCATION = "octogen_dagster.demo.definitions"
SENSORS = {
    "octogen_products_catalog_sensor",
    "octogen_listing_sensor",
    "octogen_url_list_sensor",
    "octogen_automation",
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_daemon_plays_two_days_and_the_ui_shows_them(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("day 1", "day 2", "appeared", "disappeared"))
    table = [line for line in done.stdout.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= 80
    assert "Day 2: 2 catalogs were indexed, and read." in done.stdout
    assert "3 listings of Analytics Hub are linked datasets." in done.stdout, "one is a URL list"
    [failed] = [line for line in done.stdout.splitlines() if "failed" in line]
    assert failed.startswith(
        "1 check failed, on purpose: octogen_products, partition 'northpeak' has bad rows"
    )
    snapshots = tmp_path / "octogen-demo/snapshots"
    sizes = {
        key: pl.read_parquet(snapshots / f"octogen_products/{key}.parquet") for key in CATALOGS
    }
    assert len(sizes["harbor-and-pine"]) > 2 * len(sizes["northpeak"]) > 0
    changes = pl.read_parquet(snapshots / "octogen_products_changes/*.parquet")
    assert set(changes["change"]) == {"appeared", "disappeared", "changed"}
    history = scan_history(str(snapshots), asset="octogen_products_history").collect()
    assert set(history["change"]) >= {"appeared", "changed"}
    assert len(history.filter("is_current")) == sum(map(len, sizes.values()))
    alerts = pl.read_parquet(snapshots / "octogen_products_alerts/*.parquet")
    assert set(alerts["rule"]) >= {"price_dropped", "disappeared"}
    position = pl.read_parquet(snapshots / "octogen_products_position.parquet")
    assert "matched" in set(position["status"])
    matches = pl.read_parquet(snapshots / "matches.parquet")
    found = pl.read_parquet(snapshots / "competitor_matches.parquet").drop_nulls("sku")
    assert set(found["matched_by"].drop_nulls()) == {"url", "page"}
    listed = found.unique(["sku", "url"])
    assert set(matches["url"]) >= set(listed["url"])
    assert set(listed["status"]) >= {"covered", "not_covered"}
    covered = listed.filter(status="covered")
    assert 0.8 * len(listed) < len(covered) < 0.95 * len(listed)
    assert covered["product_url"].null_count() == 0
    comparison = pl.read_parquet(snapshots / "price_comparison.parquet")
    assert set(comparison["sku"]) <= set(matches["sku"])
    assert {True, False} <= set(comparison["difference"] < 0)
    assert f"{len(covered)} are covered." in done.stdout
    assert "The past of a product: octogen-dagster history --base-dir " in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("In SQL: ")]
    past = eval(line.rpartition(", or ")[2], {"duckdb": duckdb}).fetchall()
    assert len(past) == len(history.filter(~pl.col("is_current")))
    with duckdb.connect(str(tmp_path / "octogen-demo/shop.duckdb")) as shop:
        (counted,) = shop.sql("SELECT count(*) FROM octogen.octogen_products").fetchall()
    assert counted == (sum(map(len, sizes.values())),)
    home = tmp_path / "octogen-demo/dagster_home"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs()
        assert not instance.telemetry_enabled
        key = dg.AssetKey("octogen_products_history")
        position_key = dg.AssetKey("octogen_products_position")
        histories = instance.fetch_materializations(key, limit=len(CATALOGS)).records
        (last,) = instance.fetch_materializations(position_key, limit=1).records
        assert last.timestamp >= histories[0].timestamp
        queued = instance.add_run(
            runs[0].with_status(dg.DagsterRunStatus.QUEUED)._replace(run_id=str(uuid.uuid4()))
        )
    # What the last tick requested is executed once the UI is there.
    statuses = {run.status for run in runs} - {dg.DagsterRunStatus.QUEUED}
    assert statuses == {dg.DagsterRunStatus.SUCCESS}
    assert {run.tags["dagster/sensor_name"] for run in runs} == SENSORS, "none was launched by hand"
    origins = {run.remote_job_origin for run in runs}
    assert {origin and origin.location_name for origin in origins} == {LOCATION}
    with running_ui(tmp_path) as (process, _url, pages, printed):
        assert "day 2" in printed
        assert "day 3" not in printed
        assert "3 listings of Analytics Hub" in printed, "as those of the sandbox before"
        assert any("?view=partitions&partition=northpeak" in page for page in pages)
        assert any("?view=checks&checkDetail=prices" in page for page in pages)
        assert len(processes_of(tmp_path)) > 1
        with dg.DagsterInstance.from_config(str(home)) as instance:
            statuses = {run.status for run in instance.get_runs()}
            assert instance.get_run_by_id(queued.run_id)
        assert dg.DagsterRunStatus.CANCELED not in statuses
        process.send_signal(signal.SIGINT)
        ends_all(tmp_path)
        assert process.wait(120) == 0


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_days_before_the_last_two_are_dated_back(tmp_path: Path) -> None:
    done = run(tmp_path, "--days", "6", "--products", "3")  # each catalog has one or more
    assert (done.returncode, done.stderr) == (0, "")
    snapshots = tmp_path / "octogen-demo/snapshots"
    history = scan_history(str(snapshots), asset="octogen_products_history").collect()
    days = history["valid_from"].dt.date().unique().sort()
    assert days.diff().drop_nulls().to_list() == [timedelta(days=1)] * 4  # the last two are today
    [line] = [line for line in done.stdout.splitlines() if "--as-of" in line]
    command = shlex.split(line.partition("octogen-dagster ")[2])
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.output
    assert "since" in shown.output


@pytest.mark.long
@pytest.mark.slow
def test_a_port_that_is_taken_ends_the_demo_before_it_writes_anything(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "--ui", "--port", port)
    assert done.returncode == 1
    assert f"Port {port} cannot be used for the Dagster UI" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_hint_holds_in_a_clone_and_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clone = Path(__file__).parents[2]
    in_clone = "run --no-dev --extra sandbox --extra duckdb --extra ui octogen-dagster demo --ui"
    monkeypatch.chdir(clone)
    assert ui_command({"UV": f"{clone}/.uv/bin/uv"}) == f".uv/bin/uv {in_clone}"
    assert ui_command({"UV": "/usr/bin/uv"}) == f"uv {in_clone}"
    assert in_clone in (clone / "README.md").read_text()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert ui_command({}) == "octogen-dagster demo --ui"
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert ui_command({}) == 'pip install "octogen-dagster[ui]" && octogen-dagster demo --ui'


@pytest.mark.parametrize("with_hub", [False, True])
def test_the_code_location_is_one_graph_that_says_what_it_is(
    with_hub: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OCTOGEN_DEMO_SNAPSHOTS", str(tmp_path))
    monkeypatch.delenv(EMULATOR, raising=False)
    if with_hub:
        monkeypatch.setenv(EMULATOR, "127.0.0.1:9")
    defs: dg.Definitions = runpy.run_module(LOCATION)["defs"]
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    roots = {key.to_user_string() for key in graph.root_materializable_asset_keys}
    linked = {"octogen_linked_datasets"} if with_hub else set()
    assert roots == {"octogen_catalogs"} | linked
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    assert all(node.description and node.owners == ["team:pricing"] for node in nodes)
    assert {node.group_name for node in nodes} == {"catalogs", "prices", "history", "tables"}
    assert len(repository.sensor_defs) == 2 + 2 * with_hub
    assert os.environ.get(EMULATOR) == ("127.0.0.1:9" if with_hub else None)
