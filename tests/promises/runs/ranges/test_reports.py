"""A run of several partitions publishes, reports and fails each by itself."""

import gc
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import Received, http, page, unlisted
from tests.projects import Project
from tests.promises.paged_service import PagedService
from tests.promises.runs.ranges.helpers import (
    CATALOGS,
    KEY,
    SINGLE,
    THREE,
    lines_of,
    products_of_a_range,
    reported,
    run,
)
from tests.results import failure


def now() -> datetime:
    return datetime.now(UTC)


PARTITIONS: dict[str, Any] = {
    "catalogs": (od.catalog_partitions, CATALOGS),
    "named": (dg.StaticPartitionsDefinition(CATALOGS), CATALOGS),
}


@pytest.mark.parametrize("of", [SINGLE, THREE], ids=["single run", "three in a run"])
@pytest.mark.parametrize("kind", PARTITIONS)
def test_each_partition_of_a_run_is_published_and_reported_by_itself(
    project: Project, sandbox: Sandbox, kind: str, of: dg.BackfillPolicy
) -> None:
    partitions, keys = PARTITIONS[kind]
    products = products_of_a_range(partitions_def=partitions, backfill_policy=of)
    result = run(project, sandbox, [products], keys[1:4])

    assert result.success
    found = reported(project.instance)
    assert sorted(found, key=str) == keys[1:4]
    for partition, event in found.items():
        path = project.folder / "products" / f"{partition}.parquet"
        assert set(pl.read_parquet(path)["catalog_key"]) == {partition}
        assert event.metadata["dagster/partition_row_count"].value == 250
        assert event.metadata["octogen/cost_usd"].value == pytest.approx(3 * 0.014)
        assert event.tags
        assert event.tags["dagster/data_version"]


@pytest.mark.slow
def test_a_partition_that_did_not_change_keeps_its_data_version(project: Project) -> None:
    keys = CATALOGS[:2]
    service = PagedService(dict.fromkeys(keys, 25))
    products = products_of_a_range()

    def versions() -> list[str]:
        with service.running() as server:
            run_id = run(project, server, [products], keys).run_id
        found = reported(project.instance, run_id=run_id)
        return [(found[key].tags or {})["dagster/data_version"] for key in keys]

    first = versions()
    later = datetime(2026, 11, 27, tzinfo=UTC).isoformat()
    service.indexed_at |= dict.fromkeys(keys, later)

    def change(key: str, _page: int, products: list[dict[str, Any]]) -> None:
        if key == keys[1]:
            products[0]["title"] = "Another"

    service.change = change
    assert versions() == [first[0], later]
    (observed,) = project.instance.fetch_observations(KEY, limit=9).records
    assert observed.partition_key == f"{keys[0]} (indexed again)"


def test_a_range_of_catalogs_and_days_is_of_the_present_day(
    project: Project, sandbox: Sandbox
) -> None:
    days = od.catalog_days((now() - timedelta(days=2)).date().isoformat())
    products = products_of_a_range(partitions_def=days)
    today, yesterday = (f"{now() - timedelta(days=ago):%Y-%m-%d}" for ago in (0, 1))
    result = run(project, sandbox, [products], [f"shop0|{yesterday}", f"shop2|{today}"])

    assert set(reported(project.instance)) == {f"shop{number}|{today}" for number in range(3)}
    assert (
        sorted(path.name for path in project.folder.rglob("*.parquet")) == [f"{today}.parquet"] * 3
    )
    text = failure(result)
    assert "3 of 6 partitions of products failed. The other 3 are published and reported" in text
    assert f"'shop1|{yesterday}': The partition from {yesterday} 00:00" in text


@pytest.mark.slow
def test_a_run_lists_the_catalogs_once_and_learns_the_contract_once(
    project: Project, sandbox: Sandbox
) -> None:
    products = products_of_a_range()
    assert run(project, sandbox, [products], CATALOGS, concurrency=4).success
    paths = [(each.path, each.status) for each in sandbox.requests]
    assert paths.count(("/catalogs", 404)) == 1
    assert paths.count(("/products/search", 422)) == 1
    assert paths.count(("/products/search", 200)) == 3 * len(CATALOGS)


def test_a_list_of_catalogs_that_cannot_be_had_is_asked_for_once(
    project: Project, sandbox: Sandbox
) -> None:
    sandbox.inject(Fault("status", 503, path="/catalogs"))
    products = products_of_a_range(retry_policy=None)
    text = failure(run(project, sandbox, [products], CATALOGS, concurrency=1))
    assert "6 of 6 partitions of products failed" in text
    assert [each.path for each in sandbox.requests] == ["/catalogs"]


def test_a_catalog_that_is_indexed_before_its_own_read_is_read_once(project: Project) -> None:
    service = PagedService(dict.fromkeys(CATALOGS[:2], 25))

    def index_again(key: str, page: int, _products: list[dict[str, Any]]) -> None:
        if (key, page) == (CATALOGS[0], 3):
            service.indexed_at[CATALOGS[1]] = "2026-11-26T05:00:00Z"

    service.change = index_again
    products = products_of_a_range(search=od.ProductSearch(page_size=5))
    with service.running() as server:
        assert run(project, server, [products], CATALOGS[:2], concurrency=1).success
    assert sorted(service.searches) == [(key, page) for key in CATALOGS[:2] for page in range(1, 6)]
    assert service.lists == 3  # before the first read, and after each
    tags = reported(project.instance)[CATALOGS[1]].tags
    assert tags
    assert tags["dagster/data_version"] == "2026-11-26T05:00:00+00:00"


def test_catalogs_of_a_page_share_one_list(project: Project) -> None:
    service = PagedService(dict.fromkeys(CATALOGS, 25))
    with service.running() as server:
        result = run(project, server, [products_of_a_range()], CATALOGS, concurrency=3)
    assert result.success
    assert len(service.searches) == len(CATALOGS)
    assert service.lists == 1
    shown: list[Any] = [
        event.metadata["octogen/metrics"].value for event in reported(project.instance).values()
    ]
    requests = [numbers["requests"] for numbers in shown]
    assert sum(requests) == len(CATALOGS) + 1  # of the one that asked for the list, that too


@pytest.mark.slow
def test_a_catalog_that_fails_spoils_no_other(project: Project, sandbox: Sandbox) -> None:
    project.instance.add_dynamic_partitions("octogen_catalogs", ["shop6", "shop7"])
    keys = [*CATALOGS, "shop6", "shop7"]
    products = products_of_a_range()
    result = run(project, sandbox, [products], keys)

    assert not result.success
    assert sorted(reported(project.instance), key=str) == CATALOGS
    assert "2 of 8 partitions of products failed. The other 6 are published" in failure(result)
    status = project.instance.get_status_by_partition(KEY, keys, od.catalog_partitions)
    assert status
    assert [key for key in keys if status[key] == dg.AssetPartitionStatus.FAILED] == keys[6:]
    (event,) = result.get_step_failure_events()
    assert event.step_failure_data.user_failure_data
    assert not [each for each in result.all_events if each.is_step_up_for_retry]


def test_no_more_requests_are_in_flight_than_the_resource_reads_at_once(project: Project) -> None:
    lock, in_flight, most, requests = threading.Lock(), 0, 0, 0
    two_at_once = threading.Event()

    def respond(request: Received) -> list[bytes]:
        nonlocal in_flight, most, requests
        with lock:
            in_flight, requests = in_flight + 1, requests + 1
            most = max(most, in_flight)
            is_first = requests == 1  # it learns the contract, and the others wait for it
        if most >= 2:
            two_at_once.set()
        assert is_first or two_at_once.wait(30)
        with lock:
            in_flight -= 1
        return http(200, page([f"{request.json['catalog']}-product"], None))

    products = products_of_a_range()
    with unlisted(respond) as server:
        result = run(project, server, [products], CATALOGS, concurrency=2)
    assert result.success
    assert most == 2


def test_a_catalog_is_read_while_the_one_before_it_is_reported(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = {key: threading.Event() for key in CATALOGS}
    waited: list[bool] = []
    handle_new_event = project.instance.handle_new_event

    def respond(request: Received) -> list[bytes]:
        requested[request.json["catalog"]].set()
        return http(200, page([f"{request.json['catalog']}-product"], None))

    def handle_after_the_next_request(event: dg.EventLogEntry, **options: Any) -> None:
        done = event.asset_materialization and event.asset_materialization.partition
        if done and done != CATALOGS[-1]:
            waited.append(requested[CATALOGS[CATALOGS.index(done) + 1]].wait(60))
        handle_new_event(event, **options)

    monkeypatch.setattr(project.instance, "handle_new_event", handle_after_the_next_request)
    with unlisted(respond) as server:
        result = run(project, server, [products_of_a_range()], CATALOGS, concurrency=1)
    assert result.success
    assert waited == [True] * (len(CATALOGS) - 1)


def respond_to_any_catalog(request: Received) -> list[bytes]:
    """A page of one product."""
    products = page([f"{request.json['catalog']}-product"], None)
    return http(200, products, connection="keep-alive")


def test_the_catalogs_of_a_run_are_read_over_the_same_connections(project: Project) -> None:
    products = products_of_a_range()
    with unlisted(respond_to_any_catalog, keep_alive=True) as server:
        result = run(project, server, [products], CATALOGS, concurrency=2)
    assert result.success
    assert len(CATALOGS) > 3
    assert len(server.connections) <= 3  # of the list, and of the catalogs that are read at once


def test_a_run_that_is_done_leaves_no_connection_open(project: Project) -> None:
    with unlisted(respond_to_any_catalog, keep_alive=True) as server:
        run(project, server, [products_of_a_range()], CATALOGS)
        gc.collect()
        assert server.connections
        for _ in server.connections:
            server.wait_for_closed_connection()


@pytest.mark.slow
def test_a_second_run_reads_no_log_of_the_first_for_each_catalog(
    project: Project, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = products_of_a_range()
    first = run(project, sandbox, [products], CATALOGS)
    logs_read, all_logs = [], project.instance.all_logs

    def read(run_id: str, of_type: Any = None) -> Sequence[dg.EventLogEntry]:
        logs_read.append(run_id)
        return all_logs(run_id, of_type=of_type)

    monkeypatch.setattr(project.instance, "all_logs", read)
    assert run(project, sandbox, [products], CATALOGS).success
    assert first.run_id not in logs_read


def test_a_range_is_published_by_the_io_manager_of_the_asset(
    project: Project, tmp_path: Path, sandbox: Sandbox
) -> None:
    products = products_of_a_range(
        io_manager_def=od.ParquetSnapshotIOManager(base_dir=str(tmp_path / "own"))
    )
    project.folder = tmp_path / "common"
    assert run(project, sandbox, [products], CATALOGS[:2]).success
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")}
    assert files == {"own/products/shop0.parquet", "own/products/shop1.parquet"}


@pytest.mark.parametrize(
    ("added_again", "problem"),
    [
        ("shop2", "so the range now has 6 partitions instead of at most 3"),
        ("shop0", "the first partition was deleted and added again while this run was queued"),
    ],
)
def test_a_range_whose_end_was_added_again_reads_nothing(
    project: Project, sandbox: Sandbox, added_again: str, problem: str
) -> None:
    products = products_of_a_range(backfill_policy=THREE)
    project.instance.delete_dynamic_partition("octogen_catalogs", added_again)
    project.instance.add_dynamic_partitions("octogen_catalogs", [added_again])
    result = run(project, sandbox, [products], ["shop0", "shop2"])
    assert "products cannot read the partitions from 'shop0' to 'shop2'" in failure(result)
    assert problem in failure(result)
    assert not sandbox.requests


@pytest.mark.slow
def test_a_warning_of_the_search_is_logged_once_for_all_catalogs(
    project: Project, sandbox: Sandbox
) -> None:
    products = products_of_a_range(search=od.ProductSearch(page_size=90))
    result = run(project, sandbox, [products], CATALOGS)
    assert result.success
    lines = lines_of(project.instance, result.run_id)
    assert sum("page_size is 90" in line for line in lines) == 1
    assert len(lines) < len(CATALOGS)


FOLLOWING = (
    od.build_product_history_asset,
    od.build_product_details_asset,
    od.build_product_brands_asset,
)


@pytest.mark.long
@pytest.mark.parametrize("build", FOLLOWING)
def test_what_follows_the_products_takes_a_range_too(
    project: Project, sandbox: Sandbox, build: Callable[..., dg.AssetsDefinition]
) -> None:
    products = products_of_a_range()
    follows = build(products, name="follows", backfill_policy=SINGLE)
    assert run(project, sandbox, [products], CATALOGS[:2]).success

    result = run(project, sandbox, [products, follows], CATALOGS[:3], selection=[follows])
    assert "1 of 3 partitions of follows failed. The other 2 are published" in failure(result)
    assert "'shop2': The snapshot of products, partition 'shop2' does not exist" in failure(result)
    found = reported(project.instance, follows.key)
    assert sorted(found, key=str) == CATALOGS[:2]
    for partition, event in found.items():
        rows = project.read("follows", partition)
        assert event.metadata["dagster/partition_row_count"].value == len(rows) > 0
        assert "dagster/column_lineage" in event.metadata


def test_an_asset_of_ones_own_returns_a_frame_for_each_partition(
    project: Project, sandbox: Sandbox
) -> None:
    damaged = True

    def explode(title: str) -> str:
        raise ZeroDivisionError(title)

    @dg.asset(partitions_def=od.catalog_partitions, backfill_policy=SINGLE)
    def titles(context: dg.AssetExecutionContext) -> dict[str, pl.LazyFrame]:
        def frame(key: str) -> pl.LazyFrame:
            made = pl.LazyFrame({"title": [key]})
            if damaged and key == "shop1":
                return made.with_columns(pl.col("title").map_elements(explode, pl.String))
            return made

        return {key: frame(key) for key in context.partition_keys}

    key = titles.key
    first = run(project, sandbox, [titles], CATALOGS[:3])
    assert "1 of 3 partitions of titles failed. The other 2 are published" in failure(first)
    assert set(reported(project.instance, key)) == {"shop0", "shop2"}
    damaged = False
    again = run(project, sandbox, [titles], CATALOGS[:3])
    assert again.success
    found = reported(project.instance, key, again.run_id)
    rows = {
        each: event.metadata["dagster/partition_row_count"].value for each, event in found.items()
    }
    assert rows == dict.fromkeys(CATALOGS[:3], 1)
    assert project.read("titles", "shop1")["title"].to_list() == ["shop1"]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (
            pl.LazyFrame({"a": [1]}),
            "value of type LazyFrame in a run of 2 partitions. Return a dict",
        ),
        (
            {"shop0": pl.LazyFrame({"a": [1]})},
            "without a frame for 1 of the run's 2 partitions, such as 'shop1'",
        ),
        (
            dict.fromkeys([*CATALOGS[:2], "shop5"], pl.LazyFrame({"a": [1]})),
            "a frame for 'shop5', which is not one of the run's 2 partitions",
        ),
    ],
    ids=["one frame", "too few", "too many"],
)
def test_an_asset_of_ones_own_that_returns_others_is_told_what_to_return(
    project: Project, sandbox: Sandbox, made: Any, problem: str
) -> None:
    @dg.asset(partitions_def=od.catalog_partitions, backfill_policy=SINGLE)
    def titles() -> Any:
        return made

    assert problem in failure(run(project, sandbox, [titles], CATALOGS[:2]))
    assert not reported(project.instance, titles.key)
