"""A BigQuery that keeps silent: no request waits for it without end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dagster_gcp import BigQueryResource
from google.cloud.bigquery import Client, SchemaField
from google.cloud.bigquery.retry import DEFAULT_RETRY

from octogen_dagster.bigquery import tables as bigquery_tables
from octogen_dagster.bigquery.tables import TableName, first_rows, read_table, write_query
from octogen_dagster.errors import OctogenBigQueryError
from tests.bigquery.rest_api import PROJECT, answering, environment, refused

TABLE = TableName(PROJECT, "shop", "products")
VIEW = {
    "tableReference": {"projectId": PROJECT, "datasetId": "shop", "tableId": "products"},
    "type": "VIEW",
    "location": "US",
    "schema": {"fields": []},
}
DATASET = {
    "datasetReference": {"projectId": PROJECT, "datasetId": "shop"},
    "location": "US",
}


@pytest.mark.parametrize(
    ("call", "silent"),
    [
        (lambda client: read_table(client, TABLE), "/tables/products"),
        (lambda client: read_table(client, TABLE), "/jobs"),
        (lambda client: write_query(client, "SELECT 1", TABLE, {}), "/datasets/shop"),
        (lambda client: write_query(client, "SELECT 1", TABLE, {}), "/jobs"),
        (lambda client: first_rows(client, TABLE, (SchemaField("a", "STRING"),), 1), "/data"),
    ],
)
def test_a_request_that_is_not_answered_is_sent_again(
    call: Callable[[Client], Any], silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery_tables, "_TIMEOUT", 0.2)
    monkeypatch.setattr(DEFAULT_RETRY, "_initial", 0.001)
    asked: list[str] = []
    given_up = threading.Event()

    def answer(method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        path = path.partition("?")[0]
        if path.endswith(silent):
            asked.append(path)
            if len(asked) == 1:
                given_up.wait(20)
            given_up.set()
            return refused(404, "notFound", "gone")
        return 200, VIEW if path.endswith("/tables/products") else DATASET

    with answering(answer) as server:
        for name, value in environment(server, server, tmp_path).items():
            monkeypatch.setenv(name, value)
        with (
            BigQueryResource(project=PROJECT).get_client() as client,
            closing(client),
            pytest.raises(OctogenBigQueryError, match="BigQuery refused"),
        ):
            call(client)
    assert len(asked) == 2
