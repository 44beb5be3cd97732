"""A snapshot of a linked view has all of its rows in Polars' types, or the one before stays."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

import octogen_dagster as od
from octogen_dagster.alerts import PriceDropped
from octogen_dagster.schemas import HISTORY_SCHEMA
from tests.promises.sharing.linked import BIGQUERY, linked
from tests.results import failure, is_retried, materialized, metadata
from tests.servers.analytics_hub import Refusal, error_info
from tests.servers.bigquery import (
    PROJECT,
    UUID,
    VIEW,
    BigQueryServer,
    Silence,
    WithStorage,
    serving,
    storage_read_api,
)

NODE = "octogen_linked_snapshot"
STOP_SECONDS = 60
"""The promise is a second or two; a busy machine takes longer, a broken promise five minutes."""
AT_ONCE = dg.RetryPolicy(max_retries=1)
LISTINGS = dg.DynamicPartitionsDefinition(name="octogen_listings")

Run = Callable[..., dg.ExecuteInProcessResult]


@dg.asset(partitions_def=LISTINGS)
def linked_datasets() -> None: ...


@pytest.fixture
def server() -> BigQueryServer:
    return BigQueryServer()


@pytest.fixture
def run(server: BigQueryServer, tmp_path: Path) -> Iterator[Run]:
    """Run the asset; `storage` is a client of a Storage Read API."""
    with serving(server, tmp_path) as address:

        def run(
            storage: Any = None,
            upstream: Sequence[dg.AssetsDefinition] = (linked,),
            instance: dg.DagsterInstance | None = None,
            io_manager: Any = None,
            **arguments: Any,
        ) -> dg.ExecuteInProcessResult:
            resources: dict[str, Any] = {**BIGQUERY}
            if storage is not None:
                resources["bigquery"] = WithStorage(address, storage)
            if io_manager:
                resources["io_manager"] = io_manager
            with pytest.MonkeyPatch.context() as patch:
                if storage is not None:
                    patch.delenv("BIGQUERY_EMULATOR_HOST")
                return materialized(
                    [*upstream, od.build_linked_snapshot_asset(linked, **arguments)],
                    tmp_path / "stored",
                    resources=resources,
                    instance=instance,
                    raise_on_error=False,
                )

        yield run


def stored(folder: Path) -> list[str]:
    """The files of the store, those that are being written included."""
    names = [name for _, _, names in os.walk(folder / "stored") for name in names]
    return [name for name in names if not name.startswith("linked")]


def snapshot(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "stored" / f"{NODE}.parquet")


def uuids(folder: Path) -> list[str]:
    return snapshot(folder)["uuid"].to_list()


def batch(*values: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"uuid": list(values)})


def test_a_snapshot_that_the_listing_forbids_ends_before_a_query(
    server: BigQueryServer, run: Run, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    def materialized(**restrictions: bool) -> dg.ExecuteInProcessResult:
        entries: dict[str, Any] = {
            "dagster/table_name": VIEW,
            "octogen/restricted_export_config": dg.MetadataValue.json(restrictions),
        }
        instance.report_runless_asset_event(dg.AssetMaterialization(linked.key, metadata=entries))
        return run(upstream=(), instance=instance, retry_policy=AT_ONCE)

    result = materialized(enabled=True, restrict_query_result=True)
    assert (
        f"{VIEW} cannot be stored, because the table's listing sets restrict_query_result"
        in failure(result)
    )
    assert not is_retried(result)
    assert server.inserted == []
    server.rows = [("u1",)]
    assert materialized(enabled=True, restrict_direct_table_access=True).success
    assert uuids(tmp_path) == ["u1"]


def test_another_io_manager_gets_the_whole_frame(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    server.rows = [("u1",), ("u2",)]
    result = run(io_manager=dg.FilesystemIOManager(base_dir=str(tmp_path / "pickled")))
    assert result.success
    assert result.output_for_node(NODE)["uuid"].to_list() == ["u1", "u2"]
    assert metadata(result, NODE)["dagster/row_count"] == 2
    assert len(result.get_asset_check_evaluations()) == 3


def test_a_whole_frame_for_another_io_manager_has_all_rows(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    server.rows, server.total_rows = [("u1",)], 2
    pickled = dg.FilesystemIOManager(base_dir=str(tmp_path / "pickled"))
    assert not run(io_manager=pickled, retry_policy=None).success
    assert not (tmp_path / "pickled").exists()


def test_names_pool_group_and_checks_are_those_of_the_other_assets() -> None:
    asset = od.build_linked_snapshot_asset(
        linked_datasets, key_prefix="shop", owners=["team:data"], max_age=None
    )
    spec = asset.get_asset_spec()
    assert asset.key == dg.AssetKey(["shop", NODE])
    assert (asset.op.pool, spec.group_name, spec.owners) == (None, "octogen", ["team:data"])
    assert spec.kinds == {"octogen", "bigquery", "parquet"}
    assert asset.partitions_def == LISTINGS
    assert [dep.asset_key for dep in spec.deps] == [linked_datasets.key]
    assert {key.name for key in asset.check_keys} == {"not_empty", "expected_columns"}


@pytest.mark.parametrize(
    ("arguments", "sql"),
    [
        ({}, f"SELECT *\nFROM `{VIEW}`"),
        ({"columns": ["TITLE", "uuid"]}, f"SELECT `Title`, `uuid`\nFROM `{VIEW}`"),
        (
            {"columns": ["uuid"], "where": "a OR b -- both"},
            f"SELECT `uuid`\nFROM `{VIEW}`\nWHERE (\na OR b -- both\n)",
        ),
    ],
)
def test_the_query_has_the_columns_and_rows(
    arguments: dict[str, Any], sql: str, server: BigQueryServer, run: Run
) -> None:
    server.fields.append({"name": "Title", "type": "STRING"})
    server.rows = [("u1", "Boot")]
    shown = metadata(run(**arguments), NODE)
    assert server.inserted[0]["configuration"]["query"]["query"] == sql
    assert shown["octogen/sql"] == f"```sql\n{sql}\n```"
    assert shown["octogen/source_table"] == VIEW


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ["uuid", "`uuid` FROM x; --"],
            "does not have the column '`uuid` FROM x; --'. Its columns are uuid, size, sold.",
        ),
        (None, f"Column 'size.weight' in table {VIEW} has the type BIGNUMERIC"),
        (["sold"], f"Column 'sold' in table {VIEW} has the type RANGE"),
    ],
    ids=["unknown", "nested", "chosen"],
)
def test_a_column_that_cannot_be_read_fails_before_a_query(
    columns: list[str] | None, message: str, server: BigQueryServer, run: Run
) -> None:
    weight = {"name": "weight", "type": "BIGNUMERIC"}
    server.fields += [
        {"name": "size", "type": "RECORD", "mode": "REPEATED", "fields": [weight]},
        {"name": "sold", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
    ]
    failed = failure(run(columns=columns))
    assert message in failed
    assert ("columns=['uuid']" in failed) == (columns is None)
    assert server.inserted == []


MOMENT = datetime(2026, 1, 2, 3, 4, 5)
COLUMNS: list[tuple[str, Any, Any, pa.DataType, pl.DataType]] = [
    ("FLOAT", "1.5", 1.5, pa.float64(), pl.Float64()),
    ("INTEGER", "1", 1, pa.int64(), pl.Int64()),
    ("BOOLEAN", "true", True, pa.bool_(), pl.Boolean()),
    ("BYTES", "AGE=", b"\x00a", pa.binary(), pl.Binary()),
    ("STRING", None, None, pa.string(), pl.String()),
    ("JSON", '{"a":1}', '{"a":1}', pa.string(), pl.String()),
    ("GEOGRAPHY", "POINT(1 2)", "POINT(1 2)", pa.string(), pl.String()),
    ("NUMERIC", "1.5", Decimal("1.5"), pa.decimal128(38, 9), pl.Decimal(38, 9)),
    ("DATE", "2026-01-02", MOMENT.date(), pa.date32(), pl.Date()),
    ("DATETIME", "2026-01-02T03:04:05", MOMENT, pa.timestamp("us"), pl.Datetime("us")),
    (
        "TIMESTAMP",
        str(int(MOMENT.replace(tzinfo=UTC).timestamp()) * 1_000_000),
        MOMENT.replace(tzinfo=UTC),
        pa.timestamp("us", "UTC"),
        pl.Datetime("us", "UTC"),
    ),
    ("TIME", "03:04:05", MOMENT.time(), pa.time64("us"), pl.Time()),
    ("STRING", [{"v": "a"}, {"v": "b"}], ["a", "b"], pa.list_(pa.string()), pl.List(pl.String())),
]
"""The type in BigQuery, the value over REST and in Python, and the types in Arrow and Polars."""


@pytest.mark.parametrize("api", ["REST", "Storage Read API"])
def test_both_apis_bring_each_type_in_the_same_form(
    api: str, server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    kinds, sent, expected, arrow_types, dtypes = zip(*COLUMNS, strict=True)
    server.fields[:] = [
        {"name": f"c{i}", "type": kind, "mode": "REPEATED" if type(value) is list else "NULLABLE"}
        for i, (kind, value) in enumerate(zip(kinds, sent, strict=True))
    ]
    server.rows = [sent]
    # Google marks fields as geographies and such, which would become types of their own.
    marks = [{"ARROW:extension:name": f"google:sqlType:{kind.lower()}"} for kind in kinds]
    schema = pa.schema(
        [
            pa.field(f"c{i}", kind, metadata=mark)
            for i, (kind, mark) in enumerate(zip(arrow_types, marks, strict=True))
        ]
    )
    arrays = [pa.array([value], kind) for value, kind in zip(expected, arrow_types, strict=True)]
    arrow = pa.RecordBatch.from_arrays(arrays, schema=schema)
    with storage_read_api([arrow]) as storage:
        result = run(storage if api != "REST" else None, max_age=None)
    assert metadata(result, NODE)["octogen/read_by"] == api
    frame = snapshot(tmp_path)
    assert frame.row(0) == expected
    assert frame.dtypes == list(dtypes)


def test_structs_and_their_types_in_sql_are_kept(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    sku = {"name": "sku", "type": "STRING"}
    server.fields += [
        {"name": "variants", "type": "RECORD", "mode": "REPEATED", "fields": [sku]},
        {"name": "price", "type": "FLOAT", "description": "In dollars."},
    ]
    server.rows = [("u1", [{"v": {"f": [{"v": "s"}]}}], "1.5")]  # type: ignore[list-item]
    columns = metadata(run(), NODE)["octogen/source_columns"].columns
    assert [(each.name, each.type, each.description) for each in columns] == [
        ("uuid", "STRING", None),
        ("variants", "ARRAY<STRUCT<sku STRING>>", None),
        ("price", "FLOAT64", "In dollars."),
    ]
    assert snapshot(tmp_path).row(0) == ("u1", [{"sku": "s"}], 1.5)


def test_a_result_over_rest_is_read_page_after_page(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    result = run()
    assert metadata(result, NODE)["octogen/read_by"] == "REST"
    assert (uuids(tmp_path), server.pages) == (["u1", "u2", "u3"], [0, 2])


def test_each_stream_of_the_storage_read_api_is_read(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    server.total_rows = 4
    with storage_read_api([batch("u1"), batch("u2", "u3")], [batch("u4")]) as storage:
        assert run(storage).success
    assert sorted(uuids(tmp_path)) == ["u1", "u2", "u3", "u4"]
    assert server.pages == []


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (
            Refusal("PERMISSION_DENIED", "Not for you."),
            "(PERMISSION_DENIED: 403 Not for you). Ask an administrator to grant these "
            f"Google credentials roles/bigquery.readSessionUser on project {PROJECT}.",
        ),
        (
            Refusal(
                "PERMISSION_DENIED",
                "Disabled.",
                error_info(
                    "SERVICE_DISABLED",
                    service="bigquerystorage.googleapis.com",
                    consumer=f"projects/{PROJECT}",
                ),
            ),
            "`gcloud services enable bigquerystorage.googleapis.com --project my-project`",
        ),
        (Refusal("UNIMPLEMENTED", "What?"), "(UNIMPLEMENTED: 501 What?)."),
    ],
    ids=["denied", "disabled", "unknown"],
)
def test_rest_takes_over_if_the_storage_read_api_refuses(
    refusal: Refusal, line: str, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with storage_read_api(refusal=refusal) as storage:
        result = run(storage)
    assert metadata(result, NODE)["octogen/read_by"] == "REST"
    assert uuids(tmp_path) == ["u1", "u2", "u3"]
    log = capfd.readouterr().err
    assert "Reading rows over REST, which is slower, because the Storage Read API rejected" in log
    assert line in log


def test_a_stream_that_breaks_publishes_nothing_and_says_so(run: Run, tmp_path: Path) -> None:
    with storage_read_api([batch("u1"), Refusal("DATA_LOSS", "Torn.")]) as storage:
        message = failure(run(storage, retry_policy=None))
    assert f"The rows of {VIEW}: BigQuery failed (DATA_LOSS: Torn). Try again later." in message
    assert stored(tmp_path) == []


def test_a_run_that_is_stopped_does_not_wait_for_a_silent_stream(run: Run, tmp_path: Path) -> None:
    silence, interrupted_at = Silence(), list[float]()

    def interrupt() -> None:
        assert silence.begun.wait(300)
        interrupted_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with storage_read_api([batch("u1"), silence], [Silence()]) as storage:
        threading.Thread(target=interrupt).start()
        assert not run(storage, retry_policy=None).success
        assert time.monotonic() - interrupted_at[0] < STOP_SECONDS
    assert stored(tmp_path) == []


def test_a_result_with_fewer_rows_than_it_claims_is_not_published(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    assert run().success
    server.total_rows, server.rows = 5, [("v1",), ("v2",)]
    message = failure(run(retry_policy=None))
    assert "is incomplete: 2 of 2 rows were written; the result of BigQuery's job" in message
    assert "has 5. Nothing was published." in message
    assert uuids(tmp_path) == ["u1", "u2", "u3"]
    assert stored(tmp_path) == [f"{NODE}.parquet"]


def test_pages_without_end_are_not_read(server: BigQueryServer, run: Run, tmp_path: Path) -> None:
    server.total_rows, server.rows = 3, [(f"u{number}",) for number in range(200)]
    assert "has 3. Nothing was published" in failure(run(retry_policy=None))
    assert server.pages[-1] <= 6
    assert stored(tmp_path) == []


def test_a_read_that_fails_is_retried_and_leaves_nothing_behind(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    server.page_failures = 2
    result = run(retry_policy=AT_ONCE)
    assert f"The rows of {VIEW}: BigQuery failed (504 timeout: The result is late)" in (
        failure(result)
    )
    assert is_retried(result)
    assert stored(tmp_path) == []


def test_a_view_that_lost_its_rows_replaces_no_snapshot_by_itself(
    server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    server.rows = []
    message = failure(run())
    assert "was not published. The read returned no products (min_rows_percent is 50)." in message
    assert "Octogen exported only part of the catalog" in message
    assert stored(tmp_path) == []
    assert run(min_rows_percent=0).success
    assert uuids(tmp_path) == []


@pytest.mark.parametrize("api", ["REST", "Storage Read API"])
def test_a_condition_may_select_no_rows(
    api: str, server: BigQueryServer, run: Run, tmp_path: Path
) -> None:
    assert run().success
    server.rows = []
    with storage_read_api([]) as storage:
        result = run(storage if api != "REST" else None, where="FALSE", columns=["uuid"])
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {"not_empty": False, "expected_columns": True, "fresh": False}
    assert snapshot(tmp_path).schema == {"uuid": pl.String()}


@pytest.mark.parametrize(
    ("kind", "values", "newest"),
    [
        ("TIMESTAMP", ["1000000", "3000000", None, "2000000"], "1970-01-01T00:00:03+00:00"),
        ("DATE", ["2026-01-02", "2026-01-01"], "2026-01-02T00:00:00+00:00"),
        ("TIMESTAMP", [None], None),
        ("STRING", ["yesterday"], None),
    ],
)
def test_the_last_modification_is_the_newest_export(
    kind: str,
    values: list[str | None],
    newest: str | None,
    server: BigQueryServer,
    run: Run,
    tmp_path: Path,
) -> None:
    server.fields[:] = [UUID, {"name": "Exported_At", "type": kind}]
    server.rows = [("u", value) for value in values]
    shown = metadata(run(), NODE)
    seconds = newest and datetime.fromisoformat(newest).timestamp()
    assert shown.get("octogen/last_modified") == seconds
    facts = pl.read_parquet_metadata(tmp_path / "stored" / f"{NODE}.parquet")
    assert facts.get("octogen.last_modified") == newest
    assert facts["octogen.source_table"] == VIEW
    assert facts["octogen.job_id"] == shown["octogen/job_id"]


PRODUCT = {
    "uuid": "u",
    "catalog_key": "acme",
    "product_url": "https://acme.example/u",
    "currency": "EUR",
    "current_price": "100",
}
TYPES = {"current_price": "NUMERIC", "in_stock": "BOOL", "exported_at": "TIMESTAMP"}


def export(server: BigQueryServer, day: int, *products: dict[str, str]) -> None:
    """Let Octogen export products on a day of November; their values are as in REST."""
    exported_at = str(int(datetime(2026, 11, day, tzinfo=UTC).timestamp() * 1e6))
    rows = [{**each, "exported_at": exported_at} for each in products]
    server.fields[:] = [{"name": name, "type": TYPES.get(name, "STRING")} for name in rows[0]]
    server.rows = [tuple(row.values()) for row in rows]


@pytest.mark.slow
def test_the_last_product_of_a_shop_that_no_longer_matches_ends_in_the_history(
    server: BigQueryServer, tmp_path: Path
) -> None:
    snapshots = od.build_linked_snapshot_asset(linked, where="current_price > 50", max_age=None)
    history = od.build_product_history_asset(snapshots)
    with serving(server, tmp_path):
        for day, shops in ((1, ("acme", "zen")), (2, ("acme",))):
            export(server, day, *(PRODUCT | {"uuid": each, "catalog_key": each} for each in shops))
            materialized([linked, snapshots, history], tmp_path, resources=BIGQUERY)
    rows = od.scan_history(str(tmp_path), asset=f"{NODE}_history").collect()
    assert dict(rows.select("catalog_key", "is_current").rows()) == {"acme": True, "zen": False}


@pytest.mark.slow
def test_a_linked_snapshot_has_a_past_of_its_exports_by_the_columns_that_its_view_has(
    server: BigQueryServer, tmp_path: Path
) -> None:
    snapshots = od.build_linked_snapshot_asset(linked, max_age=None)
    history = od.build_product_history_asset(snapshots)
    alerts = od.build_price_alerts_asset(history, [PriceDropped(percent=10)])
    assets = [linked, snapshots, history, alerts]
    with serving(server, tmp_path):
        for day, price in ((1, "100"), (2, "80"), (2, "80")):
            export(server, day, PRODUCT | {"current_price": price, "in_stock": "true"})
            result = materialized(assets, tmp_path, resources=BIGQUERY)
    shown = metadata(result, f"{NODE}_history")
    assert shown["octogen/lacking"] == "title, original_price, is_active"
    assert shown["octogen/summary"].endswith("without title, original_price, is_active")
    assert (shown["octogen/snapshots"], shown["octogen/median_price_eur"]) == (2, 80.0)
    rows = od.scan_history(str(tmp_path), asset=f"{NODE}_history").collect()
    assert rows.schema == HISTORY_SCHEMA
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2)]
    assert rows.select("valid_from", "current_price", "title").rows() == [
        (days[0], 100.0, None),
        (days[1], 80.0, None),
    ]
    (event,) = pl.read_parquet(tmp_path / f"{NODE}_alerts.parquet").to_dicts()
    assert (event["rule"], event["at"], event["change_percent"]) == ("price_dropped", days[1], -20)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["catalog_key", "product_url", "current_price"])
def test_a_view_that_loses_a_column_neither_doubles_nor_blanks_its_history(
    server: BigQueryServer, tmp_path: Path, lost: str
) -> None:
    snapshots = od.build_linked_snapshot_asset(linked, max_age=None)
    history = od.build_product_history_asset(snapshots)
    left = {name: value for name, value in PRODUCT.items() if name != lost}
    with serving(server, tmp_path):
        for day, product in ((1, PRODUCT), (2, left)):
            export(server, day, product)
            result = materialized([linked, snapshots, history], tmp_path, resources=BIGQUERY)
    assert f"column {lost}," in metadata(result, f"{NODE}_history")["octogen/left_out"]
    rows = od.scan_history(str(tmp_path), asset=f"{NODE}_history").collect()
    assert rows.select("catalog_key", "product_url", "current_price").rows() == [
        ("acme", "https://acme.example/u", 100.0)
    ]
