"""Results of queries, read over REST or by the Storage Read API."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.cloud.bigquery import Client, QueryJob

from octogen_dagster.background import StoppedError, submit
from octogen_dagster.bigquery import query_result
from octogen_dagster.bigquery.query_result import QueryResult, open_result
from tests.bigquery.rest_api import PROJECT, connected
from tests.bigquery.result_server import ResultServer, Silence, storage_read_api
from tests.servers.analytics_hub import Refusal, error_info

ENDING_SECONDS = 10
"""The promise is a fraction of a second; a broken promise takes a minute."""


@pytest.fixture
def server() -> ResultServer:
    return ResultServer()


@pytest.fixture
def client(server: ResultServer, tmp_path: Path) -> Iterator[Client]:
    with connected(server, tmp_path) as client:
        yield client


@pytest.fixture
def job(client: Client) -> QueryJob:
    return client.query("SELECT 1", job_id="job-1", job_retry=None, location="EU")


def warn_never(line: str) -> None:
    raise AssertionError(line)


def uuids(result: QueryResult) -> list[list[str]]:
    return [batch.column("uuid").to_pylist() for batch in result.batches(lambda: None)]


def batch(*values: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"uuid": list(values)})


def test_rest_reads_a_page_at_a_time(server: ResultServer, job: QueryJob) -> None:
    result = QueryResult(job, None, warn_never)
    assert (result.job_id, result.total_rows) == ("job-1", 3)
    assert [field.name for field in result.schema] == ["uuid"]
    batches = result.batches(lambda: None)
    assert next(batches).column("uuid").to_pylist() == ["u1", "u2"]
    assert [batch.column("uuid").to_pylist() for batch in batches] == [["u3"]]
    assert (result.source, server.pages) == ("REST", [0, 2])


def test_the_storage_read_api_is_read_stream_after_stream(
    server: ResultServer, job: QueryJob
) -> None:
    with storage_read_api([batch("u1"), batch("u2", "u3")], [batch("u4")]) as storage:
        result = QueryResult(job, storage, warn_never)
        assert uuids(result) == [["u1"], ["u2", "u3"], ["u4"]]
    assert (result.source, server.pages) == ("Storage Read API", [])


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (
            Refusal("PERMISSION_DENIED", "Not for you."),
            "(PERMISSION_DENIED: 403 Not for you). Let an administrator grant "
            f"roles/bigquery.readSessionUser on project {PROJECT}.",
        ),
        (
            Refusal(
                "PERMISSION_DENIED",
                "Disabled.",
                error_info(
                    "SERVICE_DISABLED",
                    service="bigquerystorage.googleapis.com",
                    consumer="projects/my-project",
                ),
            ),
            "API bigquerystorage.googleapis.com is not enabled in project my-project: let an "
            "administrator run `gcloud services enable bigquerystorage.googleapis.com --project "
            "my-project`, and try again a few minutes later.",
        ),
        (Refusal("UNIMPLEMENTED", "What?"), "(UNIMPLEMENTED: 501 What?)."),
    ],
    ids=["denied", "disabled", "unknown"],
)
def test_rest_takes_over_if_the_storage_read_api_refuses(
    refusal: Refusal, line: str, job: QueryJob
) -> None:
    warnings: list[str] = []
    with storage_read_api(refusal=refusal) as storage:
        result = QueryResult(job, storage, warnings.append)
        assert uuids(result) == [["u1", "u2"], ["u3"]]
    assert result.source == "REST"
    (warning,) = warnings
    assert warning.startswith("The rows are read by REST, which is slower: the Storage Read API ")
    assert warning.endswith(line)


def test_a_stream_that_takes_longer_than_a_request_may_is_continued(
    job: QueryJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_result, "STREAM_TIMEOUT", 0.2)
    with storage_read_api([batch("u1", "u2"), Silence(), batch("u3")]) as storage:
        assert uuids(QueryResult(job, storage, warn_never)) == [["u1", "u2"], ["u3"]]


def test_a_stream_that_brings_nothing_ends_the_read(
    job: QueryJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_result, "STREAM_TIMEOUT", 0.2)
    with (
        storage_read_api([Silence(), batch("u1")]) as storage,
        pytest.raises(DeadlineExceeded),
    ):
        uuids(QueryResult(job, storage, warn_never))


def test_a_read_that_is_stopped_does_not_wait_for_the_server(tmp_path: Path) -> None:
    server, requested, given_up = ResultServer(), threading.Event(), threading.Event()

    def silent(method: str, path: str, body: dict[str, Any]) -> Any:
        if "pageToken=2" in path:
            requested.set()
            given_up.wait(60)
        return server(method, path, body)

    with connected(silent, tmp_path) as client:
        job = client.query("SELECT 1", job_id="job-1", job_retry=None, location="EU")
        stop = threading.Event()

        def check() -> None:
            if stop.is_set():
                raise StoppedError

        batches = QueryResult(job, None, warn_never).batches(check)
        assert len(next(batches)) == 2
        following = submit(lambda: next(batches), "test")
        try:
            assert requested.wait(ENDING_SECONDS)
            stop.set()
            with pytest.raises(StoppedError):
                following.result(ENDING_SECONDS)
        finally:
            given_up.set()


def test_the_storage_read_api_has_the_credentials_of_bigquery(
    client: Client, job: QueryJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    storage = query_result._open_storage_client(client)
    assert storage.transport.host == "bigquerystorage.googleapis.com:443"
    assert storage.transport._credentials.signer is client._credentials.signer
    storage.transport.close()


@pytest.mark.parametrize("reason", ["emulator", "library"])
def test_rest_is_read_without_the_storage_read_api(
    reason: str, client: Client, job: QueryJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "library":
        monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
        monkeypatch.setitem(sys.modules, "google.cloud.bigquery_storage", None)
        monkeypatch.delattr("google.cloud.bigquery_storage", raising=False)
    with open_result(job, client, warn_never) as result:
        assert uuids(result) == [["u1", "u2"], ["u3"]]
