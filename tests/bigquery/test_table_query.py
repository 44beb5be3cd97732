"""Queries that write a BigQuery table, run by a server that answers as BigQuery's REST API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from octogen_dagster.bigquery.query_jobs import JobOrigin, QueryLimits
from octogen_dagster.bigquery.table_query import write_query
from octogen_dagster.bigquery.tables import TableName
from octogen_dagster.errors import OctogenBigQueryError
from tests.bigquery.job_server import JobServer
from tests.bigquery.rest_api import PROJECT, connected, refused, silent_once

DESTINATION = TableName(PROJECT, "analytics", "brands")
DATASET = {
    "datasetReference": {"projectId": PROJECT, "datasetId": "analytics"},
    "location": "EU",
}
RUN: dict[str, Any] = {"origin": JobOrigin("run-1", "run-1", "brands"), "limits": QueryLimits()}


def test_a_query_runs_where_its_destination_is(tmp_path: Path) -> None:
    server = JobServer(datasets={"analytics": DATASET})
    with connected(server, tmp_path) as client:
        write_query(client, "SELECT 1", DESTINATION, **RUN)
    (body,) = server.inserted
    assert body["jobReference"]["location"] == "EU"
    assert body["configuration"]["query"]["destinationTable"] == {
        "projectId": PROJECT,
        "datasetId": "analytics",
        "tableId": "brands",
    }


def test_a_query_in_the_wrong_location_is_an_error(tmp_path: Path) -> None:
    def answer(method: str, _path: str, body: dict[str, Any]) -> Any:
        if method == "GET":
            return 200, DATASET
        location = body["jobReference"]["location"]
        return refused(404, "notFound", f"Dataset octogen_acme was not found in {location}")

    with connected(answer, tmp_path) as client, pytest.raises(OctogenBigQueryError) as caught:
        write_query(client, "SELECT 1", DESTINATION, **RUN)
    assert str(caught.value).startswith(
        f"The query into {DESTINATION}, in location EU: BigQuery refused (404 notFound: Dataset "
        "octogen_acme was not found in EU). Check the name and the location"
    )


@pytest.mark.parametrize("silent", ["/datasets/analytics", "/jobs"])
def test_a_request_without_a_response_is_sent_again(
    silent: str, tmp_path: Path, quick_retries: None
) -> None:
    requests: list[str] = []
    answer = silent_once(silent, requests, lambda _: (200, DATASET))
    with (
        connected(answer, tmp_path) as client,
        pytest.raises(OctogenBigQueryError, match="BigQuery refused"),
    ):
        write_query(client, "SELECT 1", DESTINATION, **RUN, timeout=0.2)
    assert len(requests) == 2
