"""Linked tables are described and checked where they are, each listing's with its own verdict."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_partition_key
from tests.messages import Golden
from tests.promises.sharing.linked import BIGQUERY
from tests.results import failure, is_retried, materialized, metadata
from tests.servers.bigquery import PROJECT, BigQueryServer, serving

GOOD, BAD = (
    listing_partition_key(f"projects/octogen/locations/us/dataExchanges/e/listings/{name}")
    for name in ("good", "bad")
)
CHANGED_ON = {"name": "Changed_On", "type": "TIMESTAMP"}
MICROSECONDS = 1_000_000
TABLE = f"{PROJECT}.octogen_good.products_current_v1"
PRODUCTS = "octogen_linked_products"

Run = Callable[..., dg.ExecuteInProcessResult]


@dg.asset(partitions_def=od.listing_partitions)
def linked(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    dataset = f"octogen_{context.partition_key.rpartition(':')[2]}"
    return dg.MaterializeResult(
        metadata={"dagster/table_name": f"{PROJECT}.{dataset}.products_current_v1"}
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BigQueryServer]:
    """BigQuery with the linked view of each listing."""
    server = BigQueryServer()
    for name in ("good", "bad"):
        server.share(f"{PROJECT}.octogen_{name}.products_current_v1")
    with serving(server, tmp_path):
        yield server


@pytest.fixture
def run(server: BigQueryServer, instance: dg.DagsterInstance, tmp_path: Path) -> Run:
    instance.add_dynamic_partitions("octogen_listings", [GOOD, BAD])

    def run(asset: dg.AssetsDefinition, key: str = GOOD) -> dg.ExecuteInProcessResult:
        server.rows = [] if key == BAD else server.rows
        return materialized(
            [linked, asset],
            tmp_path / "snapshots",
            resources=BIGQUERY,
            partition_key=key,
            instance=instance,
            raise_on_error=False,
        )

    return run


def test_one_listing_s_green_does_not_hide_another_s_red(
    run: Run, instance: dg.DagsterInstance
) -> None:
    snapshot = od.build_linked_snapshot_asset(linked, min_rows_percent=0, max_age=None)
    for key in (GOOD, BAD):
        assert run(snapshot, key).success
    assert statuses(instance, snapshot, "not_empty") == {GOOD: "SUCCEEDED", BAD: "FAILED"}


def test_a_table_that_is_described_where_it_is_has_its_own_verdict_too(
    run: Run, server: BigQueryServer, instance: dg.DagsterInstance
) -> None:
    now = str(int(time.time() * 1000))
    for name, rows, changed in (("good", "25", now), ("bad", "0", "1000")):
        facts = {"numRows": rows, "lastModifiedTime": changed}
        server.share(f"{PROJECT}.octogen_{name}.products_current_v1", "TABLE", **facts)
    products = od.build_linked_products_asset(linked)
    for key in (BAD, GOOD):
        assert run(products, key).success
    assert statuses(instance, products, "not_empty") == {GOOD: "SUCCEEDED", BAD: "FAILED"}
    assert statuses(instance, products, "fresh") == {GOOD: "SUCCEEDED", BAD: "FAILED"}


def statuses(
    instance: dg.DagsterInstance, asset: dg.AssetsDefinition, check: str
) -> dict[str | None, str]:
    """The status of a check by partition, as Dagster's storage has it."""
    infos = instance.event_log_storage.get_asset_check_partition_info(
        [dg.AssetCheckKey(asset.key, check)]
    )
    return {info.partition_key: info.latest_execution_status.value for info in infos}


def test_a_column_of_the_user_s_choice_dates_a_snapshot(
    run: Run, server: BigQueryServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    newest = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    times = [newest - timedelta(days=9), newest, newest - timedelta(hours=1)]
    server.fields += [CHANGED_ON, {"name": "exported_at", "type": "TIMESTAMP"}]
    server.rows = [
        (f"u{number}", str(int(time.timestamp()) * MICROSECONDS), "0")
        for number, time in enumerate(times)
    ]
    snapshot = od.build_linked_snapshot_asset(linked, modified_column="changed_on")
    result = run(snapshot)
    assert result.success
    shown = metadata(result, "octogen_linked_snapshot")
    assert shown["octogen/last_modified"] == newest.timestamp()
    (file,) = (tmp_path / "snapshots").rglob("*good*.parquet")
    assert pl.read_parquet_metadata(file)["octogen.last_modified"] == newest.isoformat()
    assert statuses(instance, snapshot, "fresh") == {GOOD: "SUCCEEDED"}
    fresh = evaluation(result, "fresh")
    assert fresh.metadata["octogen/age_hours"].value == 3.0


def test_the_export_time_dates_a_snapshot_by_default(run: Run, server: BigQueryServer) -> None:
    server.fields.append({"name": "exported_at", "type": "TIMESTAMP"})
    server.rows = [("u1", "0")]
    result = run(od.build_linked_snapshot_asset(linked))
    assert result.success
    assert metadata(result, "octogen_linked_snapshot")["octogen/last_modified"] == 0
    assert not evaluation(result, "fresh").passed


def test_a_view_that_no_column_dates_is_published_with_a_warning(
    golden: Golden, run: Run, server: BigQueryServer
) -> None:
    result = run(od.build_linked_snapshot_asset(linked))
    assert result.success
    assert "octogen/last_modified" not in metadata(result, "octogen_linked_snapshot")
    fresh = evaluation(result, "fresh")
    assert (fresh.passed, fresh.severity) == (False, dg.AssetCheckSeverity.WARN)
    golden("checks", fresh.description)
    assert evaluation(result, "not_empty").passed


@pytest.mark.parametrize("name", ["uuid", "changed_at"], ids=["a text", "a misspelt name"])
def test_a_column_that_has_no_dates_fails_before_a_query(
    golden: Golden, name: str, run: Run, server: BigQueryServer
) -> None:
    server.fields.append(CHANGED_ON)
    message = failure(run(od.build_linked_snapshot_asset(linked, modified_column=name)))
    golden("errors", message)
    assert server.inserted == []


def test_a_linked_table_is_described_where_it_is(
    run: Run, server: BigQueryServer, instance: dg.DagsterInstance
) -> None:
    sku = {"name": "sku", "type": "STRING"}
    server.fields += [
        CHANGED_ON,
        {"name": "exported_at", "type": "TIMESTAMP"},
        {"name": "variants", "type": "RECORD", "mode": "REPEATED", "fields": [sku]},
    ]
    newest = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    server.counted = ["25", str(int(newest.timestamp()) * MICROSECONDS)]
    result = run(od.build_linked_products_asset(linked, columns=["UUID", "variants"]))
    shown = metadata(result, PRODUCTS)
    assert shown["dagster/table_name"] == TABLE
    assert shown["dagster/partition_row_count"] == 25
    assert (shown["octogen/table_type"], shown["octogen/location"]) == ("VIEW", "EU")
    assert shown["octogen/last_modified"] == newest.timestamp()
    assert shown["octogen/age_hours"] == 3.0
    assert shown["octogen/console"].endswith(
        "?project=my-project&p=my-project&d=octogen_good&t=products_current_v1&page=table"
    )
    types = {column.name: column.type for column in shown["dagster/column_schema"].columns}
    assert types["variants"] == "ARRAY<STRUCT<sku STRING>>"
    (body,) = server.inserted
    assert shown["octogen/job_id"] == body["jobReference"]["jobId"]
    assert body["configuration"]["labels"]["dagster_partition"] == "octogen_us_e_good"
    assert all(check.passed for check in result.get_asset_check_evaluations())


@pytest.mark.parametrize(
    ("kind", "facts", "dated", "queried"),
    [
        ("TABLE", {"numRows": "25"}, True, None),
        ("TABLE", {}, True, "MAX(`Exported_At`)"),
        ("VIEW", {}, False, "NULL"),
    ],
)
def test_rows_are_counted_by_a_query_where_the_metadata_has_no_number(
    kind: str,
    facts: dict[str, str],
    dated: bool,
    queried: str | None,
    run: Run,
    server: BigQueryServer,
) -> None:
    if dated:
        server.fields.append({"name": "Exported_At", "type": "TIMESTAMP"})
    if kind == "TABLE":
        facts = {**facts, "lastModifiedTime": "1000"}
    server.share(TABLE, kind, **facts)
    shown = metadata(run(od.build_linked_products_asset(linked)), PRODUCTS)
    assert shown["dagster/partition_row_count"] == 25
    assert ("octogen/last_modified" in shown) == (kind == "TABLE" and not (dated and queried))
    sent = [body["configuration"]["query"]["query"] for body in server.inserted]
    assert len(sent) == (0 if queried is None else 1)
    assert all(str(queried) in sql for sql in sent)


def test_a_table_that_is_empty_old_or_lacks_columns_fails_its_checks(
    run: Run, server: BigQueryServer
) -> None:
    server.fields.append(CHANGED_ON)
    changed = datetime.now(UTC) - timedelta(hours=3)
    server.counted = ["0", str(int(changed.timestamp()) * MICROSECONDS)]
    asset = od.build_linked_products_asset(
        linked, columns=["uuid", "title"], modified_column="changed_on", max_age=timedelta(hours=2)
    )
    result = run(asset)
    assert result.success
    found = {name: evaluation(result, name) for name in ("not_empty", "expected_columns", "fresh")}
    assert {name: (check.passed, check.description) for name, check in found.items()} == {
        "not_empty": (False, f"{TABLE} has 0 rows."),
        "expected_columns": (False, f"{TABLE} is missing columns: title."),
        "fresh": (False, f"{TABLE} was modified 3 hours ago; the maximum is 2 hours."),
    }
    assert found["not_empty"].severity is dg.AssetCheckSeverity.ERROR
    assert found["fresh"].severity is dg.AssetCheckSeverity.WARN


def test_without_a_maximum_age_or_partitions_there_is_no_check_of_these() -> None:
    @dg.asset
    def one() -> None: ...

    products = od.build_linked_products_asset(one, max_age=None)
    assert {key.name for key in products.check_keys} == {"not_empty", "expected_columns"}
    assert products.partitions_def is None


def test_a_linked_dataset_that_is_gone_says_what_to_do(
    golden: Golden, run: Run, server: BigQueryServer
) -> None:
    server.tables.clear()
    golden("errors", failure(run(od.build_linked_products_asset(linked))))


@pytest.mark.slow
def test_the_table_is_that_of_the_last_materialization_of_the_partition(
    golden: Golden, server: BigQueryServer, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    instance.add_dynamic_partitions("octogen_listings", [GOOD, BAD])

    def report(key: str, **table: str) -> None:
        named = {f"dagster/{name}": value for name, value in table.items()}
        event = dg.AssetMaterialization(linked.key, partition=key, metadata=named)
        instance.report_runless_asset_event(event)

    def read() -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [linked, od.build_linked_products_asset(linked)],
            selection=[PRODUCTS],
            partition_key=GOOD,
            instance=instance,
            resources=BIGQUERY,
            raise_on_error=False,
        )

    report(BAD, table_name=f"{PROJECT}.octogen_bad.products_current_v1")
    golden("errors", failure(read()))
    report(GOOD)
    golden("errors", failure(read()))
    for name in ("p.d.t`", "`p.d.t`", "p.d.t; DROP", "p.d-1.t", "d.t"):
        report(GOOD, table_name=name)
        result = read()
        golden("errors", failure(result))
        assert not is_retried(result)
    report(GOOD, table_name=f"{PROJECT}.octogen_old.products_current_v1")
    report(GOOD, table_name=TABLE)
    assert metadata(read(), PRODUCTS)["dagster/table_name"] == TABLE


def test_without_credentials_a_run_says_how_to_log_in(
    golden: Golden, run: Run, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:  # it must end before that of the server does
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        patch.delenv("BIGQUERY_EMULATOR_HOST")  # an emulator needs no login
        patch.setenv("NO_GCE_CHECK", "true")
        patch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        message = failure(run(od.build_linked_products_asset(linked)))
    golden("errors", message)


def evaluation(result: dg.ExecuteInProcessResult, check: str) -> dg.AssetCheckEvaluation:
    (found,) = (each for each in result.get_asset_check_evaluations() if each.check_name == check)
    return found
