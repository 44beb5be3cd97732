"""The facts of BigQuery tables, read from a server whose responses a test writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from google.cloud.bigquery import Client, SchemaField

from octogen_dagster.bigquery.query_jobs import JobOrigin, QueryLimits
from octogen_dagster.bigquery.tables import (
    TableFacts,
    TableName,
    column_type,
    read_first_rows,
)
from octogen_dagster.bigquery.tables import read_table as read_table_of
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from tests.bigquery.job_server import JobServer
from tests.bigquery.rest_api import PROJECT, connected, refused, silent_once

TABLE = TableName(PROJECT, "octogen_acme", "products_current_v1")
VIEW = {
    "tableReference": {
        "projectId": PROJECT,
        "datasetId": "octogen_acme",
        "tableId": "products_current_v1",
    },
    "type": "VIEW",
    "location": "US",
    "schema": {"fields": []},
}
DATED = {"fields": [{"name": "Exported_At", "type": "TIMESTAMP"}]}


def read_table(client: Client, modified_column: str | None = None, **timeout: float) -> TableFacts:
    origin = JobOrigin("run-1", "run-1", "products")
    return read_table_of(
        client, TABLE, modified_column, origin=origin, limits=QueryLimits(), **timeout
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("my-project.octogen_acme.products_current_v1", TABLE),
        (" octogen_acme.products_current_v1 ", TABLE),
        ("example.com:shop.d.t-1", TableName("example.com:shop", "d", "t-1")),
    ],
)
def test_a_table_is_named_by_three_parts(name: str, parts: TableName) -> None:
    assert TableName.parse(name, default_project=PROJECT) == parts


@pytest.mark.parametrize(
    "name", ["", "t", "d.t", "p.d.t`", "`p.d.t`", "p.d.t; DROP", "p.d-1.t", "p\\.d.t", "p..t"]
)
def test_what_is_not_the_name_of_a_table_is_refused(name: str) -> None:
    with pytest.raises(OctogenBigQueryInputError) as caught:
        TableName.parse(name)
    assert str(caught.value) == (
        f"{name!r} is not the name of a table: it has the form <project>.<dataset>.<table>, "
        "without backticks."
    )


def test_types_are_written_as_in_sql() -> None:
    nested = SchemaField(
        "variants",
        "RECORD",
        mode="REPEATED",
        fields=[SchemaField("sku", "STRING"), SchemaField("sizes", "INTEGER", mode="REPEATED")],
    )
    assert column_type(nested) == "ARRAY<STRUCT<sku STRING, sizes ARRAY<INT64>>>"


@pytest.mark.parametrize(
    ("code", "reason", "advice"),
    [
        (403, "accessDenied", "Let an administrator grant these Google credentials what is missin"),
        (401, "authError", "Run `gcloud auth application-default login`, or give credentials to"),
        (403, "quotaExceeded", "Wait, or let an administrator raise the project's quota."),
        (404, "notFound", "Check the name and the location: a query reaches the datasets of one"),
        (400, "invalidQuery", "Correct the SQL."),
        (409, "duplicate", "Try again later."),
    ],
)
def test_a_refusal_says_what_to_do(tmp_path: Path, code: int, reason: str, advice: str) -> None:
    def refuse(*_: Any) -> Any:
        return refused(code, reason, "Not you.\n")

    with connected(refuse, tmp_path) as client, pytest.raises(OctogenBigQueryError) as caught:
        read_table(client)
    assert str(caught.value).startswith(
        f"Table {TABLE}: BigQuery refused ({code} {reason}: Not you). {advice}"
    )


def test_a_response_of_another_server_than_bigquery_is_an_error(tmp_path: Path) -> None:
    with (
        connected(lambda *_: (403, {"blocked": True}), tmp_path) as client,
        pytest.raises(OctogenBigQueryError, match=r"refused \(403 Forbidden: GET http"),
    ):
        read_table(client)


@pytest.mark.parametrize(
    ("read", "silent"),
    [
        (lambda client: read_table(client, timeout=0.2), "/tables/products_current_v1"),
        (lambda client: read_table(client, timeout=0.2), "/jobs"),
        (
            lambda client: read_first_rows(
                client, TABLE, (SchemaField("a", "STRING"),), 1, timeout=0.2
            ),
            "/data",
        ),
    ],
    ids=["table", "query", "rows"],
)
def test_a_request_without_a_response_is_sent_again(
    read: Callable[[Client], Any], silent: str, tmp_path: Path, quick_retries: None
) -> None:
    requests: list[str] = []
    answer = silent_once(silent, requests, lambda _: (200, VIEW))
    with (
        connected(answer, tmp_path) as client,
        pytest.raises(OctogenBigQueryError, match="BigQuery refused"),
    ):
        read(client)
    assert len(requests) == 2


MODIFIED = datetime(2026, 1, 2, tzinfo=timezone.utc)
NEWEST = datetime(2026, 2, 3, tzinfo=timezone.utc)
TABLE_RESOURCE = {
    **VIEW,
    "type": "TABLE",
    "lastModifiedTime": str(int(MODIFIED.timestamp() * 1000)),
}


@pytest.mark.parametrize(
    ("resource", "modified", "query"),
    [
        ({**TABLE_RESOURCE, "schema": DATED, "numRows": "25"}, MODIFIED, None),
        (TABLE_RESOURCE, MODIFIED, "NULL"),
        ({**TABLE_RESOURCE, "schema": DATED}, NEWEST, "MAX(`Exported_At`)"),
        (VIEW, None, "NULL"),
        ({**VIEW, "schema": DATED}, NEWEST, "MAX(`Exported_At`)"),
    ],
    ids=["table", "table without rows", "dated table without rows", "view", "dated view"],
)
def test_rows_are_counted_where_the_metadata_has_no_number(
    tmp_path: Path, resource: dict[str, Any], modified: datetime | None, query: str | None
) -> None:
    newest = str(int(NEWEST.timestamp() * 1_000_000)) if modified == NEWEST else None
    server = JobServer(tables={"octogen_acme.products_current_v1": resource}, row=["25", newest])
    with connected(server, tmp_path) as client:
        facts = read_table(client)
    assert (facts.rows, facts.last_modified) == (25, modified)
    bodies = [*server.dry_runs, *server.inserted]
    assert len(bodies) == (2 if query else 0)
    assert (facts.query is None) == (query is None)
    for body in bodies:
        assert str(query) in body["configuration"]["query"]["query"]
        assert body["configuration"]["labels"] == {
            "dagster_asset": "products",
            "dagster_run": "run-1",
        }


def test_a_view_beyond_the_limit_is_not_counted(tmp_path: Path) -> None:
    server = JobServer(tables={"octogen_acme.products_current_v1": VIEW}, estimate=10**12)
    with connected(server, tmp_path) as client, pytest.raises(OctogenBigQueryError) as caught:
        read_table(client)
    assert str(caught.value).startswith(
        f"Table {TABLE}, whose rows are counted: it reads 1,000,000,000,000 bytes by BigQuery's "
        "estimate, and max_bytes_billed is 100,000,000,000. It was not run"
    )
    assert not server.inserted
