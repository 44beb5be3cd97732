"""The facts of BigQuery tables, read from a server whose responses a test writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.cloud.bigquery import Client, SchemaField

from octogen_dagster.bigquery.tables import (
    TableName,
    column_type,
    read_first_rows,
    read_table,
)
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
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
        read_table(client, TABLE)
    assert str(caught.value).startswith(
        f"Table {TABLE}: BigQuery refused ({code} {reason}: Not you). {advice}"
    )


def test_a_response_of_another_server_than_bigquery_is_an_error(tmp_path: Path) -> None:
    with (
        connected(lambda *_: (403, {"blocked": True}), tmp_path) as client,
        pytest.raises(OctogenBigQueryError, match=r"refused \(403 no reason given: GET http"),
    ):
        read_table(client, TABLE)


@pytest.mark.parametrize(
    ("read", "silent"),
    [
        (lambda client: read_table(client, TABLE, timeout=0.2), "/tables/products_current_v1"),
        (lambda client: read_table(client, TABLE, timeout=0.2), "/jobs"),
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
