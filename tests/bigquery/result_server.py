"""BigQuery with a linked view whose query has a result that a test sets, over REST and gRPC."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)

from tests.bigquery.job_server import JobServer
from tests.bigquery.rest_api import PROJECT, refused
from tests.servers.analytics_hub import Refusal, abort

VIEW = f"{PROJECT}.octogen_acme.products_current_v1"
UUID = {"name": "uuid", "type": "STRING"}
EXPORTED_AT = {"name": "exported_at", "type": "TIMESTAMP"}


@dataclass
class ResultServer(JobServer):
    """An answer for `rest_api.answering`.

    Attributes:
        fields: The columns of the view and of each result.
        rows: The values of each row of a result.
        total_rows: The number of rows that a result claims to have; None for those it has.
        page_rows: The number of rows in a page.
        page_failures: How often the second page fails.
        pages: The first row of each page that was requested.
    """

    fields: list[dict[str, Any]] = field(default_factory=lambda: [UUID])
    rows: Sequence[Sequence[str | None]] = (("u1",), ("u2",), ("u3",))
    total_rows: int | None = None
    page_rows: int = 2
    page_failures: int = 0
    pages: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables["octogen_acme.products_current_v1"] = {
            "tableReference": dict(
                zip(("projectId", "datasetId", "tableId"), VIEW.split("."), strict=True)
            ),
            "type": "VIEW",
            "location": "EU",
            "schema": {"fields": self.fields},
        }

    def _results(self, job_id: str, parameters: dict[str, list[str]]) -> Any:
        result: dict[str, Any] = {
            "jobReference": self.jobs[job_id]["jobReference"],
            "jobComplete": True,
            "totalRows": str(len(self.rows) if self.total_rows is None else self.total_rows),
            "schema": {"fields": self.fields},
        }
        if parameters.get("maxResults") == ["0"]:
            return 200, result
        first = int(parameters.get("pageToken", ["0"])[0])
        self.pages.append(first)
        if first and self.page_failures:
            self.page_failures -= 1
            return refused(504, "timeout", "The result is late")
        following = first + self.page_rows
        result["rows"] = [
            {"f": [{"v": value} for value in row]} for row in self.rows[first:following]
        ]
        if following < len(self.rows):
            result["pageToken"] = str(following)
        return 200, result


class Silence:
    """The server sends no more until the call has ended. Another call is not affected."""


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

    def open_session(request: types.CreateReadSessionRequest, context: Any) -> types.ReadSession:
        if refusal is not None:
            abort(context, refusal)
        assert request.parent == f"projects/{PROJECT}"
        assert request.read_session.data_format == types.DataFormat.ARROW
        schema = pa.schema([(UUID["name"], pa.string())]).serialize().to_pybytes()
        return types.ReadSession(
            arrow_schema=types.ArrowSchema(serialized_schema=schema),
            streams=[types.ReadStream(name=name) for name in names],
        )

    def read(request: types.ReadRowsRequest, context: Any) -> Iterator[types.ReadRowsResponse]:
        stream, sent = streams[names.index(request.read_stream)], 0
        for each in list(stream):
            if isinstance(each, Refusal):
                abort(context, each)
            elif isinstance(each, Silence):
                stream.remove(each)
                ended = threading.Event()
                context.add_callback(ended.set)
                ended.wait()
            else:
                if sent >= request.offset:
                    yield _rows(each)
                sent += len(each)

    handlers = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            open_session,
            types.CreateReadSessionRequest.deserialize,
            types.ReadSession.serialize,
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            read, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
        ),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "google.cloud.bigquery.storage.v1.BigQueryRead", handlers
            )
        ]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            transport = BigQueryReadGrpcTransport(channel=channel)
            yield BigQueryReadClient(transport=transport)  # type: ignore[no-untyped-call]
    finally:
        server.stop(None)


def _rows(batch: pa.RecordBatch) -> types.ReadRowsResponse:
    content = types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
    return types.ReadRowsResponse(row_count=len(batch), arrow_record_batch=content)
