"""Queries that write a BigQuery table, run by a server whose responses a test writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from octogen_dagster.bigquery.table_query import write_query
from octogen_dagster.bigquery.tables import TableName
from octogen_dagster.errors import OctogenBigQueryError
from tests.bigquery.rest_api import PROJECT, connected, refused, silent_once

DESTINATION = TableName(PROJECT, "analytics", "brands")
DATASET = {
    "datasetReference": {"projectId": PROJECT, "datasetId": "analytics"},
    "location": "US",
}


def test_a_query_in_the_wrong_location_is_an_error(tmp_path: Path) -> None:
    def answer(method: str, _path: str, body: dict[str, Any]) -> Any:
        if method == "GET":
            return 200, {**DATASET, "location": "EU"}
        location = body["jobReference"]["location"]
        return refused(404, "notFound", f"Dataset octogen_acme was not found in {location}")

    with connected(answer, tmp_path) as client, pytest.raises(OctogenBigQueryError) as caught:
        write_query(client, "SELECT 1", DESTINATION, {})
    assert str(caught.value).startswith(
        f"The query into {DESTINATION}, in location EU: BigQuery refused (404 notFound: Dataset "
        "octogen_acme was not found in EU). Check the name and the location"
    )


def test_a_run_that_is_terminated_stops_its_query(tmp_path: Path) -> None:
    job = {
        "jobReference": {"projectId": PROJECT, "jobId": "j", "location": "US"},
        "status": {"state": "RUNNING"},
        "statistics": {"query": {"statementType": "SELECT"}},
    }
    cancelled = []

    def answer(method: str, path: str, body: dict[str, Any]) -> Any:
        if "/cancel" in path:
            cancelled.append(path)
            return 200, {"job": job}
        if "/queries/" in path:
            os.kill(os.getpid(), signal.SIGINT)
            return 200, {**job, "jobComplete": False}
        if "/datasets/" in path:
            return 200, DATASET
        return 200, {**job, "configuration": body.get("configuration", {"query": {}})}

    with connected(answer, tmp_path) as client, pytest.raises(KeyboardInterrupt):
        write_query(client, "SELECT 1", DESTINATION, {})
    assert len(cancelled) == 1


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
        write_query(client, "SELECT 1", DESTINATION, {}, timeout=0.2)
    assert len(requests) == 2
