"""Tables of Iceberg and Delta: their past, buckets, many partitions, and what errors show."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.errors import OctogenTableError
from octogen_dagster.tables import DeltaTables, IcebergTables
from octogen_dagster.tables.destination import TableDestination
from tests.promises.tables.table_runs import CATALOGS, Project, assert_same_rows
from tests.proxy import Proxy
from tests.results import failure, is_retried
from tests.servers.buckets import ENVIRONMENT, S3Bucket
from tests.servers.fixed import HTML, Answer, answering, json_answer
from tests.warehouses import ENGINES, Iceberg, Lake, needs_iceberg

DAY = datetime(2026, 11, 1, 6, tzinfo=UTC)
LAKES = [pytest.param("iceberg", marks=needs_iceberg), "delta"]


def prices(*values: float | None) -> pl.DataFrame:
    return pl.DataFrame({"price": values}, schema={"price": pl.Float64})


def opened(lake: Lake) -> Any:
    return lake.table("products")


def earlier(lake: Lake, snapshot_id: str) -> pl.DataFrame:
    """The rows of the table when a snapshot had been loaded."""
    table = opened(lake)
    if isinstance(lake, Iceberg):
        *_, found = [
            each.snapshot_id
            for each in table.snapshots()
            if each.summary["octogen.snapshot_id"] == snapshot_id
        ]
        return pl.DataFrame(table.scan(snapshot_id=found).to_arrow())
    (commit,) = [each for each in table.history() if each.get("octogen.snapshot_id") == snapshot_id]
    table.load_as_version(commit["version"])
    return pl.read_delta(table)


def noted(lake: Lake) -> str:
    """The id of the snapshot that was loaded last."""
    if isinstance(lake, Iceberg):
        return str(opened(lake).current_snapshot().summary["octogen.snapshot_id"])
    (commit,) = opened(lake).history(1)
    return str(commit["octogen.snapshot_id"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAKES)
def test_each_snapshot_that_was_loaded_can_be_read_again(kind: str, tmp_path: Path) -> None:
    lake: Any = ENGINES[kind](tmp_path)
    project = Project(tmp_path, lake.destination)
    loaded = {}
    for frame in (prices(1.0, None), prices(2.0), prices()):
        project.store(frame)
        project.load()
        loaded[noted(lake)] = frame
    assert len(loaded) == 3
    for snapshot_id, frame in loaded.items():
        assert_same_rows(earlier(lake, snapshot_id).to_dicts(), frame.to_dicts())


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAKES)
def test_a_table_that_somebody_brought_back_is_loaded_again(kind: str, tmp_path: Path) -> None:
    lake: Any = ENGINES[kind](tmp_path)
    project = Project(tmp_path, lake.destination)
    for frame in (prices(1.0, None), prices(2.0)):
        project.store(frame)
        project.load()
    if isinstance(lake, Iceberg):
        table = opened(lake)
        first = table.snapshots()[0].snapshot_id
        with table.manage_snapshots() as snapshots:
            snapshots.rollback_to_snapshot(first)
    else:
        opened(lake).restore(1)
    assert len(lake.rows("products")) == 2
    assert project.load_metadata()["octogen/loaded"] is True
    assert_same_rows(lake.rows("products"), prices(2.0).to_dicts())


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAKES)
def test_a_lake_may_be_in_a_bucket(
    kind: str, s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    bucket = S3Bucket(s3)
    # Not the proxy, a thread of this process: the library holds the interpreter while it waits.
    address = f"http://127.0.0.1:{s3.upstream}"
    destination: TableDestination = DeltaTables(
        base_dir=f"s3://{bucket.name}/lake",
        storage_options={**bucket.options, "aws_endpoint_url": address},
    )
    if kind == "iceberg":
        destination = IcebergTables(
            warehouse=f"s3://{bucket.name}/lake",
            properties={
                "uri": f"sqlite:///{tmp_path}/catalog.sqlite",
                "s3.endpoint": address,
                "s3.region": "us-east-1",
                "s3.access-key-id": dg.EnvVar("STORE_KEY"),
                "s3.secret-access-key": dg.EnvVar("STORE_SECRET"),
            },
        )
    destination.resolved().try_out()
    assert all(name.endswith("/") for name in bucket.names())  # Iceberg leaves a folder
    project = Project(tmp_path, destination)
    for frame in (prices(1.0, None), prices(2.0)):
        project.store(frame)
        assert project.load_metadata()["dagster/row_count"] == frame.height
    assert project.load_metadata()["octogen/loaded"] is False
    assert [name for name in bucket.names() if name.endswith(".parquet")]


@pytest.mark.slow
def test_a_bucket_that_takes_files_and_no_commits_is_found_before_a_load(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    bucket = S3Bucket(s3)
    options = {
        **bucket.options,
        "aws_endpoint_url": f"http://127.0.0.1:{s3.upstream}",
        "aws_conditional_put": "disabled",
    }
    destination = DeltaTables(base_dir=f"s3://{bucket.name}/lake", storage_options=options)
    with pytest.raises(OctogenTableError, match="conditional put"):
        destination.resolved().try_out()
    assert not bucket.names()


@pytest.mark.long
@pytest.mark.parametrize("kind", LAKES)
def test_an_error_of_a_bucket_shows_no_secret(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_SECRET", "wJalrXUtnFEMI")
    secret = dg.EnvVar("STORE_SECRET")
    destination: TableDestination = DeltaTables(
        base_dir="s3://no-bucket/lake",
        storage_options={
            "aws_access_key_id": secret,
            "aws_secret_access_key": secret,
            "aws_endpoint_url": "http://127.0.0.1:9",
            "aws_allow_http": True,
            "aws_region": "us-east-1",
        },
    )
    if kind == "iceberg":
        uri = f"postgresql+psycopg2://loader:{ENVIRONMENT['STORE_SECRET']}@127.0.0.1:9/catalog"
        monkeypatch.setenv("CATALOG", uri)
        destination = IcebergTables(properties={"uri": dg.EnvVar("CATALOG")})
    project = Project(tmp_path, destination)
    project.store(prices(1.0))
    text = failure(project.load(raise_on_error=False))
    assert f"{destination.place} failed: " in text
    assert "refused" in text
    assert "wJalr" not in f"{text} {destination!r}"


def delta_at(url: str, _folder: Path) -> TableDestination:
    options = {
        "aws_access_key_id": dg.EnvVar("STORE_KEY"),
        "aws_secret_access_key": dg.EnvVar("STORE_SECRET"),
        "aws_endpoint_url": url,
        "aws_allow_http": True,
        "aws_region": "us-east-1",
    }
    return DeltaTables(base_dir="s3://bucket/lake", storage_options=options)


def iceberg_at(url: str, folder: Path) -> TableDestination:
    properties = {
        "uri": f"sqlite:///{folder}/catalog.sqlite",
        "s3.endpoint": url,
        "s3.region": "us-east-1",
        "s3.access-key-id": dg.EnvVar("STORE_KEY"),
        "s3.secret-access-key": dg.EnvVar("STORE_SECRET"),
    }
    return IcebergTables(warehouse="s3://bucket/lake", properties=properties)


def rest_catalog_at(url: str, _folder: Path) -> TableDestination:
    return IcebergTables(properties={"type": "rest", "uri": url})


def rest_error(status: int, kind: str) -> Answer:
    return json_answer(status, {"error": {"message": "no", "type": kind, "code": status}})


TABLES = "POST /v1/namespaces/octogen/tables"
EXISTS = {
    "GET /v1/config": json_answer(200, {"defaults": {}, "overrides": {}}),
    "POST /v1/namespaces": json_answer(200, {"namespace": ["octogen"], "properties": {}}),
    TABLES: rest_error(409, "AlreadyExistsException"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("destination_at", "default", "answers", "request_of_an_attempt", "text"),
    [
        (delta_at, HTML, {}, "PUT /bucket/lake/octogen/products/_delta_log/", "ETag"),
        pytest.param(
            *(iceberg_at, HTML, {}, "HEAD /bucket/lake/octogen/products/metadata/", "exists"),
            marks=needs_iceberg,
        ),
        pytest.param(
            *(rest_catalog_at, HTML, {}, "GET /v1/config", "Invalid JSON"), marks=needs_iceberg
        ),
        pytest.param(
            *(rest_catalog_at, rest_error(404, "NoSuchTableException"), EXISTS, TABLES),
            "AlreadyExistsException",
            marks=needs_iceberg,
        ),
    ],
    ids=["delta-html", "iceberg-html", "catalog-html", "catalog-exists"],
)
def test_an_answer_that_no_further_attempt_changes_is_no_conflict(
    destination_at: Callable[[str, Path], TableDestination],
    default: Answer,
    answers: dict[str, Answer],
    request_of_an_attempt: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with answering(tmp_path / "requests", default, answers) as (url, requests):
        destination = destination_at(url, tmp_path)
        project = Project(tmp_path, destination)
        project.store(prices(1.0))
        told = failure(project.load(raise_on_error=False))
        attempts = [each for each in requests() if each.startswith(request_of_an_attempt)]
    assert f"{destination.place} failed: " in told
    assert text in told
    assert len(attempts) == 2  # of the run, and of its one retry


@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        ([1], [1.5], ["'value[]'", "Int64", "1.5"]),
        ([1.0], [2**53 + 1], ["'value[]'", "Float64", "9007199254740993"]),
        (["a"], [["a"]], ["'value[]'", "String", "List(String)"]),
        (["a"], [DAY], ["'value[]'", "String", "Datetime"]),
        ([{"a": [1]}], [{"a": ["b"]}], ["'value[].a[]'", "Int64", "String"]),
        ([Decimal("0.1")], [Decimal("1E-12")], ["'value[]'", "Decimal", "0.000000000001"]),
        (None, [None], ["'value'", "untyped", "[None]"]),
        (None, {"a": []}, ["'value'", "untyped", "{'a': []}"]),
        (None, [time(1)], ["'value[]'", "type Time"]),
        (None, time(1), ["'value'", "type Time"]),
    ],
)
@pytest.mark.parametrize(
    "kind", [pytest.param("iceberg", marks=[needs_iceberg, pytest.mark.slow]), "delta"]
)
def test_a_nested_value_that_a_lake_cannot_hold_is_refused_by_its_path(
    kind: str, first: Any, second: Any, parts: list[str], tmp_path: Path
) -> None:
    lake: Any = ENGINES[kind](tmp_path)
    project = Project(tmp_path, lake.destination)
    if first is not None:
        project.store(pl.DataFrame({"value": [first]}))
        project.load()
    project.store(pl.DataFrame({"value": [second, None]}))
    result = project.load(raise_on_error=False)
    text = failure(result)
    assert [part for part in parts if part not in text] == []
    assert not is_retried(result)
    if first is not None:
        assert lake.rows("products") == [{"value": first}]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAKES)
def test_a_nested_column_gets_the_fields_that_it_lacks(kind: str, tmp_path: Path) -> None:
    lake: Any = ENGINES[kind](tmp_path)
    project = Project(tmp_path, lake.destination, CATALOGS)
    project.store(pl.DataFrame({"value": [[{"a": 1}]]}), "acme")
    project.store(pl.DataFrame({"value": [[{"b": [0.5], "a": 2.0}]]}), "strada")
    for key in ("acme", "strada"):
        project.load(key)
    found = {row["partition"]: row["value"] for row in lake.rows("products")}
    assert found == {"acme": [{"a": 1, "b": None}], "strada": [{"a": 2, "b": [0.5]}]}
