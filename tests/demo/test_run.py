"""A daemon plays the days of the demo, which says what is there, and leaves nothing running."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import runpy
import signal
import socket
from collections import Counter
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest

from octogen_dagster import scan_history
from octogen_dagster.demo.processes import runner, ui_port
from octogen_dagster.demo.run import run_demo
from octogen_dagster.history.report.data import report_data
from tests.demo.command import ends_all, output_of, processes_of, run, running_ui
from tests.needs import needs

CATALOGS = ("harbor-and-pine", "northpeak")
EMULATOR = "ANALYTICS_HUB_EMULATOR_HOST"
UNDER_WAY = {
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
}
LOCATION = "octogen_dagster.demo.definitions"
SENSORS = {
    "octogen_products_catalog_sensor",
    "octogen_listing_sensor",
    "octogen_url_list_sensor",
    "octogen_automation",
}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_daemon_plays_two_days_and_the_ui_shows_them(tmp_path: Path) -> None:
    with running_ui(tmp_path) as (process, _url, pages, printed):
        assert all(word in printed for word in ("day 1", "day 2", "appeared", "disappeared"))
        table = [line for line in printed.splitlines() if line[:1] in "┏┃┡│└"]
        assert max(map(len, table)) <= 80
        assert "Day 2: 2 catalogs were re-indexed and read." in printed
        assert "3 Analytics Hub listings have linked datasets." in printed, "one is a URL list"
        [failed] = [line for line in printed.splitlines() if "failed" in line]
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
        assert f"Octogen covers {len(covered)} of {len(listed)} competitor URLs" in printed
        with duckdb.connect(str(tmp_path / "octogen-demo/shop.duckdb")) as shop:
            (counted,) = shop.sql("SELECT count(*) FROM octogen.octogen_products").fetchall()
        assert counted == (sum(map(len, sizes.values())),)
        home = tmp_path / "octogen-demo/dagster_home"
        with dg.DagsterInstance.from_config(str(home)) as instance:
            runs = instance.get_runs()
            assert not instance.telemetry_enabled
            key = dg.AssetKey("octogen_products_history")
            histories = instance.fetch_materializations(key, limit=len(CATALOGS)).records
            (last,) = instance.fetch_materializations(
                dg.AssetKey("octogen_products_position"), limit=1
            ).records
            assert last.timestamp >= histories[0].timestamp
        # What the last tick requested may be under way.
        statuses = {run.status for run in runs} - UNDER_WAY
        assert statuses == {dg.DagsterRunStatus.SUCCESS}
        assert {run.tags["dagster/sensor_name"] for run in runs} == SENSORS, "no run by hand"
        origins = {run.remote_job_origin for run in runs}
        assert {origin and origin.location_name for origin in origins} == {LOCATION}
        assert any("?view=partitions&partition=northpeak" in page for page in pages)
        assert any("?view=checks&checkDetail=prices" in page for page in pages)
        assert len(processes_of(tmp_path)) > 1
        process.send_signal(signal.SIGINT)
        ends_all(tmp_path)
        assert process.wait(120) == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_days_before_the_last_two_are_dated_back(tmp_path: Path) -> None:
    done = run(tmp_path, "--days", "6", "--products", "3")  # each catalog has one or more
    assert (done.returncode, done.stderr) == (0, "")
    snapshots = tmp_path / "octogen-demo/snapshots"
    history = scan_history(str(snapshots), asset="octogen_products_history").collect()
    days = history["valid_from"].dt.date().unique().sort()
    assert days.diff().drop_nulls().to_list() == [timedelta(days=1)] * 4  # the last two are today
    told = re.findall(r"^([^:\n]+): ((?:octogen-dagster|python) .+)$", done.stdout, re.MULTILINE)
    shown = {what: output_of(command, tmp_path) for what, command in told}
    assert "octogen_products_history" in shown["Stored tables"]
    assert "appeared" in shown["Latest changes"]
    assert "price_dropped" in shown["Price and stock alerts"]
    events = [line.split() for line in shown["Competitors below your prices"].splitlines()]
    below = [words[:3:2] for words in events if words[0].startswith("20")]
    assert below == [[f"{days[2]}", "undercut"], [f"{days[4]}", "below_floor"]]
    said = re.findall(r"Alert sensor: (\S+) (\S+): ", done.stdout)
    assert [*map(list, said)] == below
    page = report_data(str(snapshots), asset="octogen_products_history", days=30)["events"]
    assert len([sku for sku in page["sku"] if sku]) == len(below)
    assert re.search(r"\d+ columns", shown["In SQL"]), "a narrow terminal has some of them"
    assert "shape: (" in shown["In Python"]
    with dg.DagsterInstance.from_config(str(tmp_path / "octogen-demo/dagster_home")) as instance:
        read = instance.fetch_materializations(dg.AssetKey("octogen_products"), limit=99).records
        assert {run.tags["dagster/sensor_name"] for run in instance.get_runs()} == SENSORS
    assert Counter(each.partition_key for each in read) == dict.fromkeys(CATALOGS, 6)


@pytest.mark.long
def test_a_port_that_is_taken_ends_the_demo_before_it_writes_anything(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "--ui", "--port", port)
    assert done.returncode == 1
    assert f"cannot use port {port}" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_another_demo_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "octogen-demo"
    (folder / "snapshots").mkdir(parents=True)
    (folder / "snapshots/mine.parquet").touch()
    refused = run(tmp_path)
    assert refused.returncode == 1
    assert "octogen-demo/snapshots exists and was not written by a demo" in refused.stderr
    assert (folder / "snapshots/mine.parquet").exists()


def test_the_folder_of_a_demo_that_runs_is_left_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "snapshots/acme.parquet"
    kept.parent.mkdir()
    kept.touch()
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(SystemExit, match="demo is running in"):
        run_demo(tmp_path, catalogs=1, products=1, days=2, port=None)
    os.close(held)
    assert kept.exists()


def test_a_command_begins_as_the_demo_itself_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    clone = Path(__file__).parents[2]
    monkeypatch.chdir(clone)
    assert runner({"UV": f"{clone}/.uv/bin/uv"}) == ".uv/bin/uv run --no-sync "
    assert runner({"UV": "/usr/bin/uv"}) == "uv run --no-sync "
    assert runner({}) == ""


@needs("dagster_webserver")
def test_the_ui_has_another_port_if_nobody_chose_the_one_that_is_taken() -> None:
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # another program has it
            taken.bind(("127.0.0.1", 3000))
            taken.listen()
        assert ui_port(None) > 3000


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
    assert len(repository.sensor_defs) == 3 + 2 * with_hub
    assert os.environ.get(EMULATOR) == ("127.0.0.1:9" if with_hub else None)
