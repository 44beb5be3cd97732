"""BigQuery on loopback, as its REST reference and the protos of its Storage Read API describe it.

`BigQueryServer` remembers jobs and has the tables and results that a test sets. There is also
`answering`, a server whose responses a test writes, and the emulator.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import google.auth.credentials
import grpc
import pyarrow as pa
import pytest
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from tests.api.servers import RawServer, Received, http
from tests.servers.analytics_hub import Refusal, abort

PROJECT = "my-project"
VIEW = f"{PROJECT}.octogen_acme.products_current_v1"
UUID = {"name": "uuid", "type": "STRING"}
EXPORTED_AT = {"name": "exported_at", "type": "TIMESTAMP"}
ENVIRONMENT = os.environ.get("LOCAL_BIGQUERY")
"""The folder that `tests/servers/bigquery_emulator.sh` made."""

_COUNTED = [
    {"name": "row_count", "type": "INTEGER"},
    {"name": "last_modified", "type": "TIMESTAMP"},
]
_BILLED = 10 * 2**20
_START_TIMEOUT = 60
_STOP_TIMEOUT = 20
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")

Answer = Callable[[str, str, dict[str, Any]], tuple[int, dict[str, Any]]]
"""A function from the method, path and body of a request to a status and a body."""
Rows = Sequence[Sequence[str | None]]


def refused(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    """The response of BigQuery to a request that it refuses."""
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return code, {"error": {"code": code, "message": message, "errors": errors}}


@dataclass
class BigQueryServer:
    """An answer for `answering`: a project with a linked view, whose jobs have results.

    Attributes:
        fields: The columns of the view and of each result.
        rows: The rows of each result.
        counted: The number of rows and the last modification that a query of these finds.
        total_rows: The number of rows that a result claims to have; None for those it has.
        page_rows: The number of rows in a page.
        page_failures: How often the second page of a result fails.
        silent: The part of a path whose requests are not answered.
        estimate: The bytes that each query reads.
        failures: The error results of the next jobs, in their order; None for one that succeeds.
        polls: The number of requests for results until a job has ended.
        refusals: The number of times that the results of a job are refused.
        lost_answers: The number of inserts whose jobs are created and whose answers are lost.
        unseen: The number of times that a job which exists is not found.
        results: The columns and rows of the results of queries with a text, by this text; other
            queries have `fields` and `rows`.
        tables: The resources of tables by dataset and table, as "analytics.brands".
        inserted: The body of each insert that was not a dry run, in their order.
        jobs: The resources of jobs by id.
        cancelled: The ids of the jobs that were cancelled.
        pages: The first row of each page that was requested.
        billed: The bytes that were billed.
    """

    fields: list[dict[str, Any]] = field(default_factory=lambda: [UUID])
    rows: Rows = (("u1",), ("u2",), ("u3",))
    counted: list[str | None] = field(default_factory=lambda: ["25", None])
    total_rows: int | None = None
    page_rows: int = 2
    page_failures: int = 0
    silent: str | None = None
    estimate: int = 1_000
    failures: list[dict[str, Any] | None] = field(default_factory=list)
    polls: int = 0
    refusals: int = 0
    lost_answers: int = 0
    unseen: int = 0
    results: dict[str, tuple[list[dict[str, Any]], Rows]] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    inserted: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    billed: int = 0
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.share(VIEW)

    def share(self, table: str, kind: str = "VIEW", **facts: Any) -> None:
        """Add a table or view with the server's columns."""
        names = dict(zip(("projectId", "datasetId", "tableId"), table.split("."), strict=True))
        self.tables[table.partition(".")[2]] = {
            "tableReference": names,
            "type": kind,
            "location": "EU",
            "schema": {"fields": self.fields},
            **facts,
        }

    def expire(self) -> None:
        """Let the results of all jobs be gone."""
        for name in [name for name in self.tables if name.startswith("_anonymous.")]:
            del self.tables[name]

    def age(self, seconds: int) -> None:
        """Let all jobs have ended earlier."""
        for job in self.jobs.values():
            job["statistics"]["endTime"] = str(_now() - 1_000 * seconds)

    def __call__(self, method: str, path: str, body: dict[str, Any]) -> Any:
        if self.silent and self.silent in path:
            self.held.set()
            self.released.wait(300)
        with self._lock:
            return self._answer(method, path, body)

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        url = urlsplit(path)
        match url.path.partition("/projects/")[2].split("/")[1:]:
            case ["jobs"]:
                return self._insert(body)
            case ["jobs", job_id]:
                return self._get(job_id)
            case ["jobs", job_id, "cancel"]:
                self.cancelled.append(job_id)
                return 200, {"job": self.jobs[job_id]}
            case ["queries", job_id]:
                return self._results(job_id, parse_qs(url.query))
            case ["datasets", dataset, "tables", table]:
                name = f"{dataset}.{table}"
                if name not in self.tables:
                    return refused(404, "notFound", f"Not found: Table {PROJECT}:{name}")
                return 200, self.tables[name]
            case other:
                raise AssertionError(f"{method} {other}")

    def _insert(self, body: dict[str, Any]) -> Any:
        configuration = body["configuration"]
        query = {"statementType": "SELECT", "totalBytesProcessed": str(self.estimate)}
        if configuration.get("dryRun"):
            return 200, {**body, "status": {"state": "DONE"}, "statistics": {"query": query}}
        job_id = body["jobReference"]["jobId"]
        if job_id in self.jobs:
            return refused(409, "duplicate", f"Already Exists: Job {PROJECT}:EU.{job_id}")
        self.inserted.append(body)
        limit = configuration["query"].get("maximumBytesBilled")
        failure = self.failures.pop(0) if self.failures else None
        if limit is not None and int(limit) < self.estimate:
            failure = {
                "reason": "bytesBilledLimitExceeded",
                "message": f"Query exceeded limit for bytes billed: {limit}. {self.estimate} or "
                "higher required.",
            }
        billed = 0 if failure else _BILLED
        self.billed += billed
        table = {"projectId": PROJECT, "datasetId": "_anonymous", "tableId": job_id}
        configuration["query"].setdefault("destinationTable", table)
        if failure is None:
            self.tables[f"_anonymous.{job_id}"] = {"tableReference": table}
        self.jobs[job_id] = {
            **body,
            "status": {"state": "DONE", **({"errorResult": failure} if failure else {})},
            "statistics": {
                "startTime": str(_now() - 2_000),
                "endTime": str(_now()),
                "query": {**query, "totalBytesBilled": str(billed)},
            },
        }
        if self.lost_answers:
            self.lost_answers -= 1
            return refused(503, "backendError", "The answer is lost")
        return self._get(job_id)

    def _get(self, job_id: str) -> Any:
        if self.unseen:
            self.unseen -= 1
            return refused(404, "notFound", f"Not found: Job {job_id}")
        job = self.jobs[job_id]
        return 200, {**job, "status": {"state": "RUNNING"}} if self.polls else job

    def _results(self, job_id: str, parameters: dict[str, list[str]]) -> Any:
        job = self.jobs[job_id]
        if self.refusals:
            self.refusals -= 1
            return refused(403, "accessDenied", "Not you")
        self.polls = max(0, self.polls - 1)  # the last poll waits for the end
        if self.polls:
            return 200, {"jobReference": job["jobReference"], "jobComplete": False}
        if failure := job["status"].get("errorResult"):
            return refused(400, failure["reason"], failure["message"])
        sql = job["configuration"]["query"]["query"]
        fields, rows = self.fields, self.rows
        if "COUNT(*)" in sql:
            fields, rows = _COUNTED, [self.counted]
        for text, (columns, found) in self.results.items():
            if text in sql:
                fields, rows = columns, found
        result: dict[str, Any] = {
            "jobReference": job["jobReference"],
            "jobComplete": True,
            "totalRows": str(len(rows) if self.total_rows is None else self.total_rows),
            "schema": {"fields": fields},
        }
        if parameters.get("maxResults") == ["0"]:
            return 200, result
        first = int(parameters.get("pageToken", ["0"])[0])
        self.pages.append(first)
        if first and self.page_failures:
            self.page_failures -= 1
            return refused(504, "timeout", "The result is late")
        following = first + self.page_rows
        result["rows"] = [{"f": [{"v": value} for value in row]} for row in rows[first:following]]
        if following < len(rows):
            result["pageToken"] = str(following)
        return 200, result


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Run a server whose responses a test writes, and yield its address. It gives out tokens."""

    def respond(request: Received) -> list[bytes]:
        if request.target == "/token":
            return http(body={"access_token": "token", "expires_in": 3600})
        return http(*answer(request.method, request.target, json.loads(request.body or b"{}")))

    with RawServer(respond) as server:
        try:
            yield server.origin
        finally:
            if isinstance(answer, BigQueryServer):
                answer.released.set()


@contextlib.contextmanager
def serving(answer: Answer, folder: Path) -> Iterator[str]:
    """Run a server, connect Google's libraries to it, and let them retry at once."""
    with answering(answer) as address, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(address, address, folder).items():
            patch.setenv(name, value)
        for retry in (DEFAULT_RETRY, DEFAULT_JOB_RETRY):
            patch.setattr(retry, "_initial", 0.001)
        yield address


def environment(bigquery: str, token_server: str, folder: Path) -> dict[str, str]:
    """The environment variables that connect Google's libraries to a BigQuery on loopback.

    Args:
        bigquery: The address of BigQuery.
        token_server: The address of the server that gives out access tokens.
        folder: The folder for the file with a throw-away key.
    """
    key = {
        "type": "service_account",
        "client_email": f"tests@{PROJECT}.iam.gserviceaccount.com",
        "private_key": _private_key(),
        "project_id": PROJECT,
        "token_uri": f"{token_server}/token",
    }
    file = folder / "key.json"
    file.write_text(json.dumps(key))
    return {
        "BIGQUERY_EMULATOR_HOST": bigquery,
        "GOOGLE_APPLICATION_CREDENTIALS": str(file),
        "NO_GCE_CHECK": "true",
    }


@functools.cache
def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


class WithStorage:
    """Stands for `dagster_gcp.BigQueryResource`, with a Storage Read API that is not Google's."""

    def __init__(self, address: str, storage: BigQueryReadClient) -> None:
        self._address = address
        self._storage = storage

    @contextlib.contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        storage = self._storage

        class Client(bigquery.Client):
            def _ensure_bqstorage_client(self, *_: Any, **__: Any) -> BigQueryReadClient:
                return storage

        yield Client(
            project=PROJECT,
            credentials=google.auth.credentials.AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": self._address},
        )


class Silence:
    """The server sends no more until the call has ended. Another call is not affected.

    Attributes:
        begun: Set once the server is silent.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()


@contextlib.contextmanager
def storage_read_api(
    *streams: list[pa.RecordBatch | Refusal | Silence], refusal: Refusal | None = None
) -> Iterator[BigQueryReadClient]:
    """Run a Storage Read API, and connect a client to it.

    Args:
        streams: The batches of each stream of any table, and what comes between them.
        refusal: How it refuses sessions; None if it opens them.
    """
    names = [f"streams/{number}" for number in range(len(streams))]
    schemas = [each.schema for stream in streams for each in stream if hasattr(each, "schema")]
    schema = schemas[0] if schemas else pa.schema([("uuid", pa.string())])
    arrow_schema = types.ArrowSchema(serialized_schema=schema.serialize().to_pybytes())

    def open_session(request: types.CreateReadSessionRequest, context: Any) -> types.ReadSession:
        if refusal is not None:
            abort(context, refusal)
        assert request.parent == f"projects/{PROJECT}"
        assert request.read_session.data_format == types.DataFormat.ARROW
        return types.ReadSession(
            arrow_schema=arrow_schema, streams=[types.ReadStream(name=name) for name in names]
        )

    def read(request: types.ReadRowsRequest, context: Any) -> Iterator[types.ReadRowsResponse]:
        stream, sent = streams[names.index(request.read_stream)], 0
        for each in list(stream):
            if isinstance(each, Refusal):
                abort(context, each)
            elif isinstance(each, Silence):
                ended = threading.Event()
                context.add_callback(ended.set)
                each.begun.set()
                ended.wait(300)
            else:
                if sent >= request.offset:
                    yield _rows(each, arrow_schema)
                sent += len(each)

    handlers = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            open_session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            read, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
        ),
    }
    server = grpc.server(ThreadPoolExecutor(8))
    service = "google.cloud.bigquery.storage.v1.BigQueryRead"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            transport = BigQueryReadGrpcTransport(channel=channel)
            yield BigQueryReadClient(transport=transport)  # type: ignore[no-untyped-call]
    finally:
        server.stop(None)


def _rows(batch: pa.RecordBatch, schema: types.ArrowSchema) -> types.ReadRowsResponse:
    content = types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
    return types.ReadRowsResponse(
        row_count=len(batch), arrow_record_batch=content, arrow_schema=schema
    )


@contextlib.contextmanager
def running_emulator(folder: Path, grpc_port: int = 0) -> Iterator[str]:
    """Run the emulator without any data, and yield its address.

    Args:
        folder: The folder for its data.
        grpc_port: The port of its Storage Read API; 0 for any.
    """
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                f"{ENVIRONMENT}/bin/local-bigquery",
                *("--host", "127.0.0.1", "--port", "0", "--grpc-port", str(grpc_port)),
                *("--project", PROJECT, "--data-dir", str(folder / "data")),
            ],
            env={**os.environ, "HOME": str(ENVIRONMENT)},  # where its DuckDB finds extensions
            stdout=output,
            stderr=output,
        )
    try:
        yield _address(server, log)
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        if found := _ADDRESS.search(log.read_text()):
            return found.group()
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The emulator did not start:\n{log.read_text()}")
        time.sleep(0.1)
