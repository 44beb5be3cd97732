"""A run of several partitions publishes, reports and fails each by itself."""

import gc
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_products_asset,
    build_snapshot_checks,
    catalog_days,
    catalog_partitions,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, Received, http, page, unlisted
from tests.forked import processes
from tests.promises.paged_service import PagedService
from tests.promises.runs import range_runs
from tests.results import failure

START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
CATALOGS = [f"shop{number}" for number in range(6)]
KEY = dg.AssetKey("products")
MAX_AGAIN = 26
"""Two segments of twelve pages, and two pages that are compared."""


def policy(partitions: int | None) -> dg.BackfillPolicy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        if partitions is None:
            return dg.BackfillPolicy.single_run()
        return dg.BackfillPolicy.multi_run(partitions)


SINGLE = policy(None)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs=dict.fromkeys(CATALOGS, 250), generation="current") as running:
        yield running


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as running:
        running.add_dynamic_partitions("octogen_catalogs", CATALOGS)
        yield running


def products_of_a_range(**options: Any) -> dg.AssetsDefinition:
    """An asset whose run may have all catalogs."""
    return build_products_asset(
        "products", partitions_def=catalog_partitions, backfill_policy=SINGLE, **options
    )


def run(
    sandbox: Sandbox | RawServer | PagedService,
    folder: Path,
    assets: Sequence[Any],
    keys: Sequence[str],
    instance: dg.DagsterInstance,
    *,
    select: Any = None,
    selection: Any = None,
    tags: Mapping[str, str] | None = None,
    **settings: Any,
) -> dg.ExecuteInProcessResult:
    octogen = OctogenResource(
        api_key=sandbox.api_key, base_url=sandbox.base_url, **{"attempts": 1, **settings}
    )
    return dg.materialize(
        assets,
        resources={
            "octogen": octogen,
            "io_manager": ParquetSnapshotIOManager(base_dir=str(folder)),
        },
        instance=instance,
        tags={START: keys[0], END: keys[-1], **(tags or {})},
        selection=(select and dg.AssetSelection.assets(select)) or selection,
        raise_on_error=False,
    )


def reported(
    instance: dg.DagsterInstance, key: dg.AssetKey = KEY, run_id: str | None = None
) -> dict[str | None, dg.AssetMaterialization]:
    """Each materialization of an asset by its partition, of which none has two in a run."""
    records = instance.fetch_materializations(key, limit=1000).records
    events = [each for each in records if run_id in (None, each.run_id)]
    found = {each.partition_key: each.asset_materialization for each in events}
    assert len(found) == len(events)
    return {partition: event for partition, event in found.items() if event}


def now() -> datetime:
    return datetime.now(timezone.utc)


PARTITIONS: dict[str, Any] = {
    "catalogs": (catalog_partitions, CATALOGS),
    "named": (dg.StaticPartitionsDefinition(CATALOGS), CATALOGS),
}


@pytest.mark.parametrize("of", [SINGLE, policy(3)], ids=["single run", "three in a run"])
@pytest.mark.parametrize("kind", PARTITIONS)
def test_each_partition_of_a_run_is_published_and_reported_by_itself(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance, kind: str, of: dg.BackfillPolicy
) -> None:
    partitions, keys = PARTITIONS[kind]
    products = build_products_asset("products", partitions_def=partitions, backfill_policy=of)
    result = run(sandbox, tmp_path, [products], keys[1:4], instance)

    assert result.success
    found = reported(instance)
    assert sorted(found, key=str) == keys[1:4]
    for partition, event in found.items():
        path = tmp_path / "products" / f"{partition}.parquet"
        assert set(pl.read_parquet(path)["catalog_key"]) == {partition}
        assert event.metadata["dagster/partition_row_count"].value == 250
        assert event.metadata["octogen/cost_usd"].value == pytest.approx(3 * 0.014)
        assert event.tags
        assert event.tags["dagster/data_version"]


def test_a_range_of_catalogs_and_days_is_of_the_present_day(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    days = catalog_days((now() - timedelta(days=2)).date().isoformat())
    products = build_products_asset("products", partitions_def=days, backfill_policy=SINGLE)
    today, yesterday = (f"{now() - timedelta(days=ago):%Y-%m-%d}" for ago in (0, 1))
    result = run(sandbox, tmp_path, [products], [f"shop0|{yesterday}", f"shop2|{today}"], instance)

    assert set(reported(instance)) == {f"shop{number}|{today}" for number in range(3)}
    assert sorted(path.name for path in tmp_path.rglob("*.parquet")) == [f"{today}.parquet"] * 3
    text = failure(result)
    assert "3 of 6 partitions of products failed. The other 3 are published and reported" in text
    assert f"'shop1|{yesterday}': The partition from {yesterday} 00:00" in text


@pytest.mark.slow
def test_a_run_lists_the_catalogs_once_and_learns_the_contract_once(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = products_of_a_range()
    assert run(sandbox, tmp_path, [products], CATALOGS, instance, concurrency=4).success
    paths = [(each.path, each.status) for each in sandbox.requests]
    assert paths.count(("/catalogs", 404)) == 1
    assert paths.count(("/products/search", 422)) == 1
    assert paths.count(("/products/search", 200)) == 3 * len(CATALOGS)


def test_a_list_of_catalogs_that_cannot_be_had_is_asked_for_once(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    sandbox.inject(Fault("status", 503, path="/catalogs"))
    products = products_of_a_range(retry_policy=None)
    text = failure(run(sandbox, tmp_path, [products], CATALOGS, instance, concurrency=1))
    assert "6 of 6 partitions of products failed" in text
    assert [each.path for each in sandbox.requests] == ["/catalogs"]


def test_a_catalog_that_is_indexed_before_its_own_read_is_read_once(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    service = PagedService(dict.fromkeys(CATALOGS[:2], 25))

    def index_again(key: str, page: int, _products: list[dict[str, Any]]) -> None:
        if (key, page) == (CATALOGS[0], 3):
            service.indexed_at[CATALOGS[1]] = "2026-11-26T05:00:00Z"

    service.change = index_again
    products = products_of_a_range(search=ProductSearch(page_size=5))
    with service.running() as server:
        assert run(server, tmp_path, [products], CATALOGS[:2], instance, concurrency=1).success
    assert sorted(service.searches) == [(key, page) for key in CATALOGS[:2] for page in range(1, 6)]
    assert service.lists == 3  # before the first read, and after each
    tags = reported(instance)[CATALOGS[1]].tags
    assert tags
    assert tags["dagster/data_version"] == "2026-11-26T05:00:00+00:00"


def test_catalogs_of_a_page_share_one_list(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    service = PagedService(dict.fromkeys(CATALOGS, 25))
    with service.running() as server:
        result = run(server, tmp_path, [products_of_a_range()], CATALOGS, instance, concurrency=3)
    assert result.success
    assert len(service.searches) == len(CATALOGS)
    assert service.lists == 1
    shown: list[Any] = [
        event.metadata["octogen/metrics"].value for event in reported(instance).values()
    ]
    requests = [numbers["requests"] for numbers in shown]
    assert sum(requests) == len(CATALOGS) + 1  # of the one that asked for the list, that too


@pytest.mark.slow
def test_a_catalog_that_fails_spoils_no_other(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["shop6", "shop7"])
    keys = [*CATALOGS, "shop6", "shop7"]
    products = products_of_a_range()
    result = run(sandbox, tmp_path, [products], keys, instance)

    assert not result.success
    assert sorted(reported(instance), key=str) == CATALOGS
    assert "2 of 8 partitions of products failed. The other 6 are published" in failure(result)
    status = instance.get_status_by_partition(KEY, keys, catalog_partitions)
    assert status
    assert [key for key in keys if status[key] == dg.AssetPartitionStatus.FAILED] == keys[6:]
    (event,) = result.get_step_failure_events()
    assert event.step_failure_data.user_failure_data
    assert not [each for each in result.all_events if each.is_step_up_for_retry]


def test_no_more_requests_are_in_flight_than_the_resource_reads_at_once(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
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
        result = run(server, tmp_path, [products], CATALOGS, instance, concurrency=2)
    assert result.success
    assert most == 2


def test_a_catalog_is_read_while_the_one_before_it_is_reported(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = {key: threading.Event() for key in CATALOGS}
    waited: list[bool] = []
    handle_new_event = instance.handle_new_event

    def respond(request: Received) -> list[bytes]:
        requested[request.json["catalog"]].set()
        return http(200, page([f"{request.json['catalog']}-product"], None))

    def handle_after_the_next_request(event: dg.EventLogEntry, **options: Any) -> None:
        done = event.asset_materialization and event.asset_materialization.partition
        if done and done != CATALOGS[-1]:
            waited.append(requested[CATALOGS[CATALOGS.index(done) + 1]].wait(60))
        handle_new_event(event, **options)

    monkeypatch.setattr(instance, "handle_new_event", handle_after_the_next_request)
    with unlisted(respond) as server:
        result = run(server, tmp_path, [products_of_a_range()], CATALOGS, instance, concurrency=1)
    assert result.success
    assert waited == [True] * (len(CATALOGS) - 1)


def respond_to_any_catalog(request: Received) -> list[bytes]:
    """A page of one product."""
    products = page([f"{request.json['catalog']}-product"], None)
    return http(200, products, connection="keep-alive")


def test_the_catalogs_of_a_run_are_read_over_the_same_connections(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    products = products_of_a_range()
    with unlisted(respond_to_any_catalog, keep_alive=True) as server:
        result = run(server, tmp_path, [products], CATALOGS, instance, concurrency=2)
    assert result.success
    assert len(CATALOGS) > 3
    assert len(server.connections) <= 3  # of the list, and of the catalogs that are read at once


def test_a_run_that_is_done_leaves_no_connection_open(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with unlisted(respond_to_any_catalog, keep_alive=True) as server:
        run(server, tmp_path, [products_of_a_range()], CATALOGS, instance)
        gc.collect()
        assert server.connections
        for _ in server.connections:
            server.wait_for_closed_connection()


@pytest.mark.slow
def test_checks_are_evaluated_for_each_partition_as_it_is_done(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["shop6"])
    sandbox.inject(Fault("price", 0, page=2, times=1))
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_bad_price_fraction=0.0)
    keys = [*CATALOGS, "shop6"]
    result = run(sandbox, tmp_path, [products, *checks], keys, instance, concurrency=1)

    assert not result.success
    evaluations = [each.asset_check_evaluation_data for each in result.all_events if is_check(each)]
    of_rows = {(each.check_name, each.partition): each for each in evaluations if each.partition}
    names = ("rows_within_bounds", "nulls", "prices")
    assert sorted(of_rows) == sorted((name, key) for name in names for key in CATALOGS)
    failed = [key for key, each in of_rows.items() if not each.passed]
    assert failed == [("prices", "shop0")]
    assert "products, partition 'shop0' has bad rows" in str(of_rows[failed[0]].description)
    (fresh,) = [each for each in evaluations if each.check_name == "fresh"]
    assert fresh.partition is None
    assert fresh.metadata["octogen/fresh"].value == 6


def is_check(event: dg.DagsterEvent) -> bool:
    return event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION


def test_only_the_checks_that_a_run_requests_are_evaluated(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products)
    selection = dg.AssetSelection.assets(products).without_checks()
    selection |= dg.AssetSelection.checks(dg.AssetCheckKey(KEY, "nulls"))
    result = run(
        sandbox, tmp_path, [products, *checks], CATALOGS[:2], instance, selection=selection
    )
    assert result.success
    found = [each.asset_check_evaluation_data for each in result.all_events if is_check(each)]
    assert {(each.check_name, each.partition) for each in found} == {
        ("nulls", "shop0"),
        ("nulls", "shop1"),
    }


def test_checks_alone_name_the_partitions_without_a_snapshot_and_evaluate_the_others(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_age=None)
    assert run(sandbox, tmp_path, [products], CATALOGS[1:3], instance).success
    selection = dg.AssetSelection.checks_for_assets(products)
    alone = run(sandbox, tmp_path, [products, *checks], CATALOGS[:4], instance, selection=selection)
    found = [each.asset_check_evaluation_data for each in alone.all_events if is_check(each)]
    names = ("rows_within_bounds", "nulls", "prices")
    assert sorted((each.check_name, each.partition) for each in found) == sorted(
        (name, key) for name in names for key in CATALOGS[1:3]
    )
    text = failure(alone)
    assert "The checks of 2 of 4 partitions of products could not be evaluated" in text
    assert "'shop0': The snapshot of products, partition 'shop0' does not exist" in text
    assert "'shop3': The snapshot of products, partition 'shop3' does not exist" in text


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("bad", [[], ["shop0"]], ids=["all pass", "one fails"])
def test_an_automation_condition_waits_for_the_checks_of_each_partition(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance, bad: list[str]
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_bad_price_fraction=0.0, blocking=True)
    conditions = dg.AutomationCondition
    condition = conditions.eager() & conditions.all_deps_blocking_checks_passed()
    brands = build_product_brands_asset(products, automation_condition=condition)
    manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
    resources = {"octogen": OctogenResource(), "io_manager": manager}
    definitions = dg.Definitions([products, brands], asset_checks=checks, resources=resources)
    before = dg.evaluate_automation_conditions(definitions, instance)
    for _ in bad:
        sandbox.inject(Fault("price", 0, page=2, times=1))
    assert run(sandbox, tmp_path, [products, *checks], CATALOGS, instance, concurrency=1).success
    after = dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    assert after.get_requested_partitions(brands.key) == set(CATALOGS) - set(bad)


@pytest.mark.slow
def test_a_second_run_reads_no_log_of_the_first_for_each_catalog(
    tmp_path: Path,
    sandbox: Sandbox,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    products = products_of_a_range()
    first = run(sandbox, tmp_path, [products], CATALOGS, instance)
    logs_read, all_logs = [], instance.all_logs

    def read(run_id: str, of_type: Any = None) -> Sequence[dg.EventLogEntry]:
        logs_read.append(run_id)
        return all_logs(run_id, of_type=of_type)

    monkeypatch.setattr(instance, "all_logs", read)
    assert run(sandbox, tmp_path, [products], CATALOGS, instance).success
    assert first.run_id not in logs_read
    kept = sorted(path.name for path in (tmp_path / "products").glob("*previous*"))
    assert len(kept) == len(CATALOGS)


def test_a_range_is_published_by_the_io_manager_of_the_asset(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = build_products_asset(
        "products",
        partitions_def=catalog_partitions,
        backfill_policy=SINGLE,
        io_manager_def=ParquetSnapshotIOManager(base_dir=str(tmp_path / "own")),
    )
    assert run(sandbox, tmp_path / "common", [products], CATALOGS[:2], instance).success
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")}
    assert files == {"own/products/shop0.parquet", "own/products/shop1.parquet"}


@pytest.mark.parametrize(
    ("added_again", "problem"),
    [
        ("shop2", "are 6, and a run of this asset reads at most 3: the last one was deleted while"),
        ("shop0", "are none: the first one was deleted while this run was queued, and added again"),
    ],
)
def test_a_range_whose_end_was_added_again_reads_nothing(
    tmp_path: Path,
    sandbox: Sandbox,
    instance: dg.DagsterInstance,
    added_again: str,
    problem: str,
) -> None:
    products = build_products_asset(
        "products", partitions_def=catalog_partitions, backfill_policy=policy(3)
    )
    instance.delete_dynamic_partition("octogen_catalogs", added_again)
    instance.add_dynamic_partitions("octogen_catalogs", [added_again])
    result = run(sandbox, tmp_path, [products], ["shop0", "shop2"], instance)
    assert f"from 'shop0' to 'shop2' of products {problem}" in failure(result)
    assert not sandbox.requests


@pytest.mark.long
@pytest.mark.slow
def test_a_retry_knows_of_more_partitions_than_dagster_returns_records_at_once(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_LIMIT_GET_EVENT_RECORDS", "500")
    keys = [f"key{number}" for number in range(502)]

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(keys), backfill_policy=SINGLE)
    def titles(context: dg.AssetExecutionContext) -> dict[str, pl.LazyFrame]:
        if context.retry_number == 0:
            for key in keys[1:]:
                context.log_event(dg.AssetMaterialization("titles", partition=key))
            raise dg.RetryRequested(seconds_to_wait=0)
        return dict.fromkeys(keys, pl.LazyFrame({"a": [1]}))

    assert run(sandbox, tmp_path, [titles], keys, instance).success
    assert [path.name for path in tmp_path.rglob("*.parquet")] == ["key0.parquet"]


RETRIED = dg.RetryPolicy(max_retries=2, delay=0)


def lines_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [each.user_message for each in instance.all_logs(run_id) if not each.is_dagster_event]


@pytest.mark.slow
def test_a_retry_evaluates_the_checks_that_raised_an_error(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = products_of_a_range(retry_policy=RETRIED)
    fetch, calls = instance.fetch_materializations, 0

    def fetch_materializations(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # after that for the metadata of the first snapshot
            raise OSError("the database is away")
        return fetch(*arguments, **options)

    monkeypatch.setattr(instance, "fetch_materializations", fetch_materializations)
    checks = build_snapshot_checks(products, max_age=None)
    result = run(sandbox, tmp_path, [products, *checks], CATALOGS[:3], instance, concurrency=1)
    assert result.success
    found = [each.asset_check_evaluation_data for each in result.all_events if is_check(each)]
    names = ("rows_within_bounds", "nulls", "prices")
    assert sorted((each.check_name, each.partition) for each in found) == sorted(
        (name, key) for name in names for key in CATALOGS[:3]
    )
    (retry,) = [each for each in result.all_events if each.is_step_up_for_retry]
    text = str(retry.step_retry_data.error)
    assert "The checks of 1 of 3 partitions of products could not be evaluated" in text
    assert "'shop0': OSError: the database is away" in text
    assert "partitions of products failed" not in text
    assert sum(each.path == "/products/search" for each in sandbox.requests) == 1 + 3 * 3


@pytest.mark.slow
def test_a_run_says_where_its_checks_are_before_dagster_skips_their_step(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = products_of_a_range()
    checks = build_snapshot_checks(products, max_age=None)
    result = run(sandbox, tmp_path, [products, *checks], CATALOGS[:2], instance)
    lines = [each.user_message for each in instance.all_logs(result.run_id)]
    (said,) = [line for line in lines if line.startswith("The checks of each partition are above")]
    (skipped,) = [line for line in lines if line.startswith("Skipping step products_checks")]
    assert lines.index(said) < lines.index(skipped)

    without = run(sandbox, tmp_path, [products], CATALOGS[:2], instance)
    assert not [line for line in lines_of(instance, without.run_id) if "are above" in line]


@pytest.mark.slow
def test_a_retry_does_not_pay_again_for_what_failed_for_good(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = products_of_a_range(retry_policy=RETRIED)
    assert run(sandbox, tmp_path, [products], CATALOGS[:1], instance).success
    sandbox.grant("shop0", products=120)
    before = len(sandbox.requests)
    sandbox.inject(Fault("status", 503, times=1, path="/products/search", page=3))
    result = run(sandbox, tmp_path, [products], CATALOGS[:2], instance, concurrency=1)
    assert "1 of 2 partitions of products failed. The other 1 are published" in failure(result)
    assert "'shop0': " in failure(result)
    searches = [each for each in sandbox.requests[before:] if each.path == "/products/search"]
    assert sum(each.status == 503 for each in searches) == 1
    assert sum(each.body == {"limit": 100, "catalogs": ["shop0"]} for each in searches) == 1
    assert set(reported(instance, KEY, result.run_id)) == {"shop1"}


@pytest.mark.parametrize(("status", "url"), [(402, True), (401, False), (403, False)])
def test_an_error_of_the_key_or_its_credit_ends_the_run(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance, status: int, url: bool
) -> None:
    products = products_of_a_range(retry_policy=RETRIED)
    assert run(sandbox, tmp_path, [products], CATALOGS[:1], instance).success
    before = len(sandbox.requests)
    sandbox.inject(Fault("status", status, path="/products/search"))
    result = run(sandbox, tmp_path, [products], CATALOGS, instance, concurrency=2)
    refused = [each for each in sandbox.requests[before:] if each.status == status]
    assert 1 <= len(refused) <= 3
    text = failure(result)
    assert "were not read, since they would fail by the same error" in text
    assert "Not read:\n" in text
    assert "'shop5'" in text
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data.user_failure_data
    assert data
    assert ("octogen/top_up_url" in data.metadata) is url


def test_a_service_that_is_down_is_not_asked_for_each_catalog(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    keys = [f"shop{number}" for number in range(20)]
    products = build_products_asset(
        "products",
        partitions_def=dg.StaticPartitionsDefinition(keys),
        backfill_policy=SINGLE,
        retry_policy=dg.RetryPolicy(max_retries=0),
    )
    with Sandbox(catalogs=dict.fromkeys(keys, 10), generation="current") as sandbox:
        sandbox.inject(Fault("status", 503, path="/products/search"))
        text = failure(run(sandbox, tmp_path, [products], keys, instance, concurrency=1))
    assert "16 of 20 partitions of products failed. 4 were not read, since 16 in a row" in text
    assert "Not read:\n'shop16'\n'shop17'\n'shop18'\n'shop19'" in text


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("by", ["a retry of the step", "a re-execution"])
def test_neighbours_that_are_broken_keep_no_catalog_unread(
    tmp_path: Path, instance: dg.DagsterInstance, by: str
) -> None:
    keys = [f"shop{number:02}" for number in range(20)]
    products = build_products_asset(
        "products",
        partitions_def=dg.StaticPartitionsDefinition(keys),
        backfill_policy=SINGLE,
        retry_policy=RETRIED if by == "a retry of the step" else None,
    )
    with Sandbox(catalogs=dict.fromkeys(keys, 10), generation="current") as sandbox:
        for key in keys[:16]:
            sandbox.inject(Fault("status", 503, path="/products/search", catalog=key))
        result = run(sandbox, tmp_path, [products], keys, instance, concurrency=1)
        if by == "a re-execution":
            assert not reported(instance)
            result = again(result, sandbox, tmp_path, [products], keys, instance)
    assert sorted(reported(instance), key=str) == keys[16:]
    assert "16 of 20 partitions of products failed. The other 4 are published" in failure(result)


def again(
    result: dg.ExecuteInProcessResult, sandbox: Sandbox, *arguments: Any, **settings: Any
) -> dg.ExecuteInProcessResult:
    """Execute a run again, as Dagster does."""
    tags = {"dagster/parent_run_id": result.run_id, "dagster/root_run_id": result.run_id}
    return run(sandbox, *arguments, tags=tags, concurrency=1, **settings)


@pytest.mark.long
@pytest.mark.slow
def test_a_run_that_is_executed_again_and_fails_shows_what_is_whole_as_such(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    sandbox.inject(Fault("status", 503, path="/products/search", catalog="shop1"))
    products = products_of_a_range(retry_policy=None)
    conditions = dg.AutomationCondition
    condition = conditions.eager() & conditions.all_deps_blocking_checks_passed()
    brands = build_product_brands_asset(products, automation_condition=condition)
    checks = build_snapshot_checks(products, blocking=True)
    manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
    resources = {"octogen": OctogenResource(), "io_manager": manager}
    definitions = dg.Definitions([products, brands], asset_checks=checks, resources=resources)
    arguments = tmp_path, [products, *checks], CATALOGS, instance
    first = run(sandbox, *arguments)
    asked = len(sandbox.requests)
    before = dg.evaluate_automation_conditions(definitions, instance)
    second = again(first, sandbox, *arguments)
    third = again(second, sandbox, *arguments)
    for result in (first, second, third):
        assert "1 of 6 partitions of products failed. The other 5 are" in failure(result)
    pages = [each for each in sandbox.requests[asked:] if each.status == 200]
    assert not [each for each in pages if each.path == "/products/search"]
    status = instance.get_status_by_partition(KEY, CATALOGS, catalog_partitions)
    assert status
    failed = [key for key in CATALOGS if status[key] == dg.AssetPartitionStatus.FAILED]
    assert failed == ["shop1"]
    whole = {key for key in CATALOGS if key != "shop1"}
    events = [reported(instance, KEY, each.run_id) for each in (first, third)]
    assert set(events[0]) == set(events[1]) == whole
    for key in whole:
        assert events[0][key].metadata == events[1][key].metadata
        assert events[0][key].tags == events[1][key].tags
    # What follows waits for the checks of the last materialization.
    after = dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    assert after.get_requested_partitions(brands.key) == whole


@pytest.mark.slow
def test_a_warning_of_the_search_is_logged_once_for_all_catalogs(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    products = build_products_asset(
        "products",
        ProductSearch(page_size=90),
        partitions_def=catalog_partitions,
        backfill_policy=SINGLE,
    )
    result = run(sandbox, tmp_path, [products], CATALOGS, instance)
    assert result.success
    lines = lines_of(instance, result.run_id)
    assert sum("page_size is 90" in line for line in lines) == 1
    assert len(lines) < len(CATALOGS)


FOLLOWING = (build_product_changes_asset, build_product_details_asset, build_product_brands_asset)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("build", FOLLOWING)
def test_what_follows_the_products_takes_a_range_too(
    tmp_path: Path,
    sandbox: Sandbox,
    instance: dg.DagsterInstance,
    build: Callable[..., dg.AssetsDefinition],
) -> None:
    products = products_of_a_range()
    follows = build(products, name="follows", backfill_policy=SINGLE)
    assert run(sandbox, tmp_path, [products], CATALOGS[:2], instance).success

    result = run(sandbox, tmp_path, [products, follows], CATALOGS[:3], instance, select=follows)
    assert "1 of 3 partitions of follows failed. The other 2 are published" in failure(result)
    assert "'shop2': The snapshot of products, partition 'shop2' does not exist" in failure(result)
    found = reported(instance, follows.key)
    assert sorted(found, key=str) == CATALOGS[:2]
    for partition, event in found.items():
        rows = pl.read_parquet(tmp_path / "follows" / f"{partition}.parquet")
        assert event.metadata["dagster/partition_row_count"].value == len(rows) > 0
        assert "dagster/column_lineage" in event.metadata


def test_an_asset_of_ones_own_returns_a_frame_for_each_partition(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance
) -> None:
    damaged = True

    def explode(title: str) -> str:
        raise ZeroDivisionError(title)

    @dg.asset(partitions_def=catalog_partitions, backfill_policy=SINGLE)
    def titles(context: dg.AssetExecutionContext) -> dict[str, pl.LazyFrame]:
        def frame(key: str) -> pl.LazyFrame:
            made = pl.LazyFrame({"title": [key]})
            if damaged and key == "shop1":
                return made.with_columns(pl.col("title").map_elements(explode, pl.String))
            return made

        return {key: frame(key) for key in context.partition_keys}

    key = titles.key
    first = run(sandbox, tmp_path, [titles], CATALOGS[:3], instance)
    assert "1 of 3 partitions of titles failed. The other 2 are published" in failure(first)
    assert set(reported(instance, key)) == {"shop0", "shop2"}
    damaged = False
    again = run(sandbox, tmp_path, [titles], CATALOGS[:3], instance)
    assert again.success
    found = reported(instance, key, again.run_id)
    rows = {
        each: event.metadata["dagster/partition_row_count"].value for each, event in found.items()
    }
    assert rows == dict.fromkeys(CATALOGS[:3], 1)
    assert pl.read_parquet(tmp_path / "titles" / "shop1.parquet")["title"].to_list() == ["shop1"]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (pl.LazyFrame({"a": [1]}), "returned LazyFrame in a run of 2 partitions. Return a dict"),
        ({"shop0": pl.LazyFrame({"a": [1]})}, "nothing for 1 of its run's 2 partitions, such as"),
        (
            dict.fromkeys([*CATALOGS[:2], "shop5"], pl.LazyFrame({"a": [1]})),
            "a frame for 'shop5', which is none of its run's 2 partitions",
        ),
    ],
    ids=["one frame", "too few", "too many"],
)
def test_an_asset_of_ones_own_that_returns_others_is_told_what_to_return(
    tmp_path: Path, sandbox: Sandbox, instance: dg.DagsterInstance, made: Any, problem: str
) -> None:
    @dg.asset(partitions_def=catalog_partitions, backfill_policy=SINGLE)
    def titles() -> Any:
        return made

    assert problem in failure(run(sandbox, tmp_path, [titles], CATALOGS[:2], instance))
    assert not reported(instance, titles.key)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PagedService]:
    """A service of the catalogs of `range_runs`, each of 40 pages, and its settings."""
    catalogs = dict.fromkeys(range_runs.CATALOGS, 40 * range_runs.PAGE_SIZE)
    with PagedService(catalogs).running() as running:
        monkeypatch.setenv(range_runs.BASE_URL, running.base_url)
        monkeypatch.setenv(range_runs.API_KEY, running.api_key)
        monkeypatch.setenv(range_runs.BASE_DIR, str(tmp_path / "snapshots"))
        yield running


def spent(run: dg.DagsterRun | None) -> Decimal:
    assert run
    return Decimal(run.tags["octogen/spent_usd.products"])


@pytest.mark.slow
def test_a_killed_run_is_retried_with_what_it_did_not_report(
    service: PagedService, tmp_path: Path
) -> None:
    home = str(tmp_path / "home")
    Path(home).mkdir()
    catalogs = range_runs.CATALOGS
    with dg.DagsterInstance.local_temp(home) as instance:
        for last in (catalogs[2], catalogs[5]):  # the killed run is killed again
            parents = [each.run_id for each in instance.get_runs(limit=1)]
            arguments = (home, range_runs.settings(), *parents)
            process = processes.Process(target=range_runs.execute, args=arguments)
            process.start()
            wait_for_page(20, last, service, process)
            if parents:
                wait_for_report(instance, process)
            process.kill()
            process.join(60)
        (killed, first) = instance.get_runs()
        assert (killed.status, first.status) == (dg.DagsterRunStatus.STARTED,) * 2
        done = {each for run in (killed, first) for each in reported(instance, KEY, run.run_id)}
        assert done < set(catalogs)
        before = {each: len(service.pages_of(each)) for each in catalogs}
        again = range_runs.run(instance, killed.run_id)
        assert again.success
        assert set(reported(instance, KEY, again.run_id)) == set(catalogs) - done
        total = Decimal("0.014") * len(service.searches)
        assert spent(instance.get_run_by_id(again.run_id)) >= total - 2 * 3 * 40 * Decimal("0.014")
        # A run that succeeded is no retry's business: all is read anew.
        pages = {each: service.pages_of(each) for each in catalogs}
        assert range_runs.run(instance, again.run_id).success
        anew = {each: len(service.pages_of(each)) - len(pages[each]) for each in catalogs}
    for catalog in catalogs:
        # A run that is killed once it has reported a catalog may leave pages of it.
        assert anew[catalog] == 40 or (catalog in done and anew[catalog] < 40)
        assert len(pages[catalog]) <= 40 + 2 * MAX_AGAIN
        assert catalog not in done or len(pages[catalog]) == before[catalog]
        rows = pl.read_parquet(tmp_path / "snapshots" / "products" / f"{catalog}.parquet")
        assert rows["uuid"].n_unique() == len(rows) == 40 * range_runs.PAGE_SIZE


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("retries", [True, False], ids=["a retry", "another run"])
def test_a_killed_run_of_an_asset_of_ones_own_has_paid_for_nothing_in_vain(
    service: PagedService, tmp_path: Path, retries: bool
) -> None:
    home, catalogs = str(tmp_path / "home"), range_runs.CATALOGS
    Path(home).mkdir()
    process = processes.Process(
        target=range_runs.execute, args=(home, range_runs.settings()), kwargs={"is_own": True}
    )
    process.start()
    wait_for_page(20, catalogs[2], service, process)
    process.kill()
    process.join(60)
    with dg.DagsterInstance.local_temp(home) as instance:
        (killed,) = instance.get_runs()
        parent = killed.run_id if retries else None
        budget = 100.0 + retries  # Dagster keeps a job that is made with the same arguments
        again = range_runs.run(instance, parent, budget, is_own=True)
        assert again.success
        assert set(reported(instance, KEY, again.run_id)) == set(catalogs)
    for catalog in catalogs:
        pages = service.pages_of(catalog)
        assert set(pages) == set(range(1, 41))
        assert len(pages) <= 40 + (MAX_AGAIN if catalog == catalogs[2] else 0)
    assert not list((tmp_path / "snapshots").rglob("*.pages"))


def wait_for_report(instance: dg.DagsterInstance, process: Any) -> None:
    """Wait until the killed runs have reported a catalog."""
    deadline = time.monotonic() + 60
    while not instance.fetch_materializations(KEY, limit=1).records:
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def wait_for_page(page: int, catalog: str, service: PagedService, process: Any) -> None:
    deadline = time.monotonic() + 60
    while page not in service.pages_of(catalog):
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.long
@pytest.mark.slow
def test_the_budget_holds_over_the_run_and_its_retries(
    service: PagedService, tmp_path: Path
) -> None:
    page_usd = Decimal("0.014")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        stopped = range_runs.run(instance, budget_usd=float(150 * page_usd))
        assert len(service.searches) == 150
        done = reported(instance)
        assert 0 < len(done) <= 3
        made = instance.get_run_by_id(stopped.run_id)
        assert spent(made) == 150 * page_usd
        (event,) = [each for each in stopped.all_events if each.is_step_failure]
        text = str(event.step_failure_data.error)
        numbers = re.search(r"(\d) of 8 partitions of products failed. (\d) were not read", text)
        assert numbers
        failed, untried = (int(each) for each in numbers.groups())
        assert failed <= 3, "those that were under way"
        assert failed + untried == 8 - len(done)
        assert "the budget of $2.10 does not allow" in text

        again = range_runs.run(instance, stopped.run_id, budget_usd=float(200 * page_usd))
        assert not again.success
        assert len(service.searches) == 200, "the retry has what the run has left"

        assert range_runs.run(instance, again.run_id, budget_usd=float(400 * page_usd)).success
        assert len(service.searches) == 8 * 40, "no page was paid for twice"


@pytest.mark.slow
def test_what_other_runs_of_a_backfill_spend_meanwhile_counts_during_a_run(
    service: PagedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfill = {"dagster/backfill": "abc"}
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = range_runs.make_job(100.0)
        other = instance.create_run_for_job(job, tags=backfill)

        def spend(catalog: str, page: int, products: list[Any]) -> None:
            if catalog == "shop1":
                instance.add_run_tags(other.run_id, {"octogen/spent_usd.products": "2.0"})

        monkeypatch.setattr(service, "change", spend)
        partitions = dg.StaticPartitionsDefinition(range_runs.CATALOGS)
        products = build_products_asset(
            "products",
            ProductSearch(page_size=range_runs.PAGE_SIZE),
            partitions_def=partitions,
            backfill_policy=SINGLE,
        )
        octogen = OctogenResource(
            api_key=service.api_key,
            base_url=service.base_url,
            concurrency=1,
            attempts=1,
            backfill_budget_usd=3.0,
        )
        result = dg.materialize(
            [products],
            resources={
                "octogen": octogen,
                "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path / "s")),
            },
            instance=instance,
            tags={**range_runs.RANGE, **backfill},
            raise_on_error=False,
        )
        assert "were not read, since they would fail by the same error" in failure(result)
        assert set(reported(instance)) <= {"shop0", "shop1"}
        # The third may have begun while the second was reported.
        assert len(service.searches) < 3 * 40
