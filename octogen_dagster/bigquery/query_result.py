"""Reads the result of a query in batches of Arrow. Knows no Dagster."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Any

from octogen_dagster.background import submit, wait_interruptibly
from octogen_dagster.bigquery.query_jobs import REQUEST_TIMEOUT
from octogen_dagster.sharing.google_errors import named_cause, shortened, status_code, with_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    import pyarrow as pa
    from google.cloud.bigquery import Client, QueryJob


REST = "REST"
STORAGE_READ_API = "Storage Read API"

PAGE_ROWS = 20_000
"""The maximum number of rows in a page over REST. BigQuery sends fewer if they are large."""

STREAM_TIMEOUT = 600.0
"""Seconds for one request of the Storage Read API for rows. A longer stream is requested again."""


class QueryResult:
    """The rows of a query that has succeeded, of which a few batches are in memory.

    They are read by the Storage Read API if there is a client for it and it opens a session, and by
    REST otherwise.

    Args:
        job: The job of the query.
        storage: A `BigQueryReadClient`, or None.
        warn: Called with a line if the Storage Read API refuses.

    Attributes:
        job_id: The id of the job.
        total_rows: The number of rows by BigQuery's own count.
        schema: The columns.
        source: What the rows were read by, `REST` or `STORAGE_READ_API`.
    """

    def __init__(self, job: QueryJob, storage: Any, warn: Callable[[str], None]) -> None:
        rows = job.result(max_results=0, timeout=REQUEST_TIMEOUT)
        self.job_id: str = job.job_id
        self.total_rows: int = rows.total_rows
        self.schema = tuple(rows.schema)
        self.source = REST
        self._job = job
        self._storage = storage
        self._warn = warn

    def batches(self, check: Callable[[], object]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches. The next one is read meanwhile.

        Args:
            check: Called while a batch is waited for; what it raises ends the read.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: BigQuery refuses.
        """
        batches = self._all_batches()

        def read_next() -> Future[pa.RecordBatch | None]:
            return submit(lambda: next(batches, None), "octogen-bigquery")

        # A thread waits for the server, so that the read can be told to stop meanwhile.
        following = read_next()
        while True:
            wait_interruptibly(following, poll=check)
            if (batch := following.result()) is None:
                return
            following = read_next()
            yield batch

    def _all_batches(self) -> Iterator[pa.RecordBatch]:
        session = self._open_session() if self._storage else None
        self.source = STORAGE_READ_API if session else REST
        yield from self._storage_batches(session) if session else self._rest_batches()

    def _rest_batches(self) -> Iterator[pa.RecordBatch]:
        rows = self._job.result(page_size=PAGE_ROWS, timeout=REQUEST_TIMEOUT)
        yield from rows.to_arrow_iterable()

    def _open_session(self) -> Any:
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.api_core.retry import Retry
        from google.cloud.bigquery_storage import DataFormat, ReadSession

        wanted = ReadSession(
            table=self._job.destination.to_bqstorage(), data_format=DataFormat.ARROW
        )
        try:
            return self._storage.create_read_session(
                parent=f"projects/{self._job.project}",
                read_session=wanted,
                retry=Retry(timeout=REQUEST_TIMEOUT),
                timeout=REQUEST_TIMEOUT,
            )
        except (GoogleAPICallError, RetryError) as error:
            code = status_code(error)
            if isinstance(error, GoogleAPICallError):
                code = with_reason(code, error)
            self._warn(
                "The rows are read by REST, which is slower: the Storage Read API refused "
                f"({code}: {shortened(error)}). {self._advice(error)}".rstrip()
            )
            return None

    def _advice(self, error: Exception) -> str:
        from google.api_core.exceptions import Forbidden

        if not isinstance(error, Forbidden):
            return ""
        return named_cause(error) or (
            "Let an administrator grant roles/bigquery.readSessionUser on project "
            f"{self._job.project}."
        )

    def _storage_batches(self, session: Any) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        for stream in session.streams:
            for message in self._stream_messages(stream.name):
                batch = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
                yield pa.ipc.read_record_batch(batch, schema)

    def _stream_messages(self, stream: str) -> Iterator[Any]:
        """Yield the messages of a stream. A stream that brings nothing for a time is an error."""
        from google.api_core.exceptions import DeadlineExceeded
        from google.api_core.retry import Retry

        # Google's client would wait for a day.
        bounds = {"retry": Retry(timeout=REQUEST_TIMEOUT), "timeout": STREAM_TIMEOUT}
        offset = 0
        while True:
            begin = offset
            try:
                for message in self._storage.read_rows(stream, offset, **bounds):
                    offset += message.row_count
                    yield message
                return
            except DeadlineExceeded:
                if offset == begin:
                    raise


@contextlib.contextmanager
def open_result(
    job: QueryJob, client: Client, warn: Callable[[str], None]
) -> Iterator[QueryResult]:
    """Open the result of a query while the block runs.

    Args:
        job: The job of the query, which has succeeded.
        client: BigQuery.
        warn: Called with a line if the Storage Read API refuses.

    Raises:
        google.api_core.exceptions.GoogleAPICallError: BigQuery refuses.
    """
    storage = _open_storage_client(client)
    try:
        yield QueryResult(job, storage, warn)
    finally:
        if storage is not None:
            storage.transport.close()


def _open_storage_client(client: Client) -> Any:
    """Open a client of the Storage Read API with the credentials of a client of BigQuery.

    It is None if google-cloud-bigquery-storage is not installed or is too old, or if BigQuery is an
    emulator.
    """
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a library that is not there
        return client._ensure_bqstorage_client()
