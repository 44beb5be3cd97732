"""Runs BigQuery queries with labels and a billing limit. Retried runs reuse earlier results."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from octogen_dagster.assets.definition import Metadata
from octogen_dagster.background import submit, wait_interruptibly
from octogen_dagster.bigquery.tables import last_materialization
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryUnreachableError
from octogen_dagster.sharing.google_errors import (
    BIGQUERY,
    named_cause,
    shortened,
    status_code,
    translate_google_errors,
    with_reason,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from google.cloud.bigquery import Client, QueryJob, QueryJobConfig

MAX_BYTES_BILLED = 100 * 10**9
"""Default limit for bytes billed per query."""

DOLLARS_PER_TIB = 6.25
"""Google's on-demand price in the US since July 2023."""

REQUEST_TIMEOUT = 60.0
"""Time limit for one attempt of a request, in seconds."""

_JOB_TIMEOUT = 6 * 3600.0
_MAX_ATTEMPTS = 20  # failed jobs per query, in a run and its retries
_CANCEL_TIMEOUT = 10.0
_LOOKUP_TIMEOUT = 60.0
_MAX_REUSE_AGE = timedelta(hours=24)  # BigQuery keeps query results for this long

_PAGE_ROWS = 20_000
_SILENCE_TIMEOUT = 600.0


def require_max_bytes_billed(limit: object) -> None:
    if limit is not None and (not isinstance(limit, int) or limit <= 0):
        raise ValueError(
            f"max_bytes_billed must be a positive integer, or None for no limit; got {limit!r}."
        )


def run_query(
    context: dg.AssetExecutionContext,
    client: Client,
    sql: str,
    *,
    subject: str,
    location: str,
    exported_at: float | None,
    max_bytes_billed: int | None,
) -> QueryJob:
    """Run a query and return its job. If the run is a retry, reuse the previous attempt's job.

    BigQuery rejects a query that would exceed the billing limit, and bills nothing. The job id is
    derived from the run, the query and the export. If a run is retried or a response was lost, the
    existing job is found by its id, and the query is not billed again. A new job is started if the
    existing job failed, is older than 24 hours or no longer has a result. If the run is stopped,
    the job is cancelled.
    """
    from google.cloud.bigquery import QueryJobConfig
    from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY

    config = QueryJobConfig(labels=_labels(context))
    config.job_timeout_ms = int(_JOB_TIMEOUT * 1000)
    if max_bytes_billed is not None:
        config.maximum_bytes_billed = max_bytes_billed
    job_id = _job_id(context, sql, location, exported_at)
    query = _Query(client, sql, subject, location, config, job_id)
    with translate_google_errors(BIGQUERY, subject):
        # Google's client retries BigQuery's own failures only for jobs with random ids.
        job: QueryJob = DEFAULT_JOB_RETRY(query.run)()
    return job


def dry_run(client: Client, sql: str, seconds: float) -> int:
    """Validate a query with a free dry run. Return the number of bytes the query would read."""
    from google.cloud.bigquery import QueryJobConfig

    job = client.query(
        sql,
        job_config=QueryJobConfig(dry_run=True, use_query_cache=False),
        timeout=seconds,
        retry=None,  # type: ignore[arg-type]  # None turns retries off
        job_retry=None,
    )
    return job.total_bytes_processed or 0


def query_metadata(job: QueryJob) -> Metadata:
    """Return metadata with a query's job id, billed bytes, price and duration."""
    billed_bytes = job.total_bytes_billed or 0
    return {
        "octogen/job_id": str(job.job_id),
        "octogen/billed_bytes": billed_bytes,
        "octogen/query_dollars": round(billed_bytes / 2**40 * DOLLARS_PER_TIB, 6),
        "octogen/seconds": round((job.ended - job.started).total_seconds(), 3),
    }


def _labels(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return job labels that identify the asset, the run and the partition."""
    labels = {
        "dagster_asset": context.asset_key.to_user_string(),
        "dagster_run": context.run.run_id,
        **({"dagster_partition": context.partition_key} if context.has_partition_key else {}),
    }
    return {key: re.sub(r"[^a-z0-9_-]", "_", value.lower())[:63] for key, value in labels.items()}


def _job_id(
    context: dg.AssetExecutionContext, sql: str, location: str, exported_at: float | None
) -> str:
    """Return the job id prefix for a query.

    A run and its retries use the same prefix until one of them succeeds. The prefix also depends on
    the latest materialization. If a successful run is repeated, the query therefore runs again and
    is billed again.
    """
    last = last_materialization(context, context.asset_key)
    parts = [
        context.run.root_run_id or context.run.run_id,
        context.asset_key.to_user_string(),
        context.partition_key if context.has_partition_key else None,
        None if last is None else last.storage_id,
        *(sql, location, exported_at),
    ]
    return f"octogen_dagster_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


@dataclass(frozen=True)
class _Query:
    client: Client
    sql: str
    subject: str
    location: str
    config: QueryJobConfig
    job_id: str

    def run(self) -> QueryJob:
        """Return a successful job for the query. Start new jobs if necessary."""
        from google.api_core.exceptions import Conflict

        for attempt in range(_MAX_ATTEMPTS):
            job_id = f"{self.job_id}_{attempt}"
            with self._cancelled_if_stopped(job_id):
                try:
                    job = self._insert(job_id)
                except Conflict:  # a response was lost, or this run retries another
                    job = self._find(job_id)
                    if self._has_result(job):
                        return job
                else:
                    self._wait(job)
                    return job
        failure = job.error_result or {"reason": "gone", "message": "its result is gone"}
        raise OctogenBigQueryError(
            f"{self.subject} failed {_MAX_ATTEMPTS} times across all attempts of this run. The "
            f"latest error is {failure.get('reason')}: {shortened(failure.get('message'))}. Look "
            f"up job {job_id} in BigQuery, then start a new run."
        )

    def _insert(self, job_id: str) -> QueryJob:
        return self.client.query(
            self.sql,
            job_config=self.config,
            job_id=job_id,
            job_retry=None,
            location=self.location,
            timeout=REQUEST_TIMEOUT,
        )

    def _find(self, job_id: str) -> QueryJob:
        from google.api_core.exceptions import NotFound
        from google.api_core.retry import Retry, if_exception_type

        # BigQuery might not find a job immediately, although its id is taken.
        lookup = Retry(if_exception_type(NotFound), initial=0.1, timeout=_LOOKUP_TIMEOUT)
        found = lookup(self.client.get_job)(job_id, location=self.location, timeout=REQUEST_TIMEOUT)
        return cast("QueryJob", found)

    def _has_result(self, job: QueryJob) -> bool:
        """Wait for an existing job. Return True if the job's result can be used."""
        from google.api_core.exceptions import GoogleAPICallError, NotFound

        if not job.done(reload=False):
            try:
                self._wait(job)
            except GoogleAPICallError:
                job.reload(timeout=REQUEST_TIMEOUT)
                if job.error_result is None:  # the request failed, not the job
                    raise
        if job.error_result is not None or job.destination is None:
            return False
        if datetime.now(UTC) - job.ended > _MAX_REUSE_AGE:
            return False
        try:
            self.client.get_table(job.destination, timeout=REQUEST_TIMEOUT)
        except NotFound:
            return False
        return True

    def _wait(self, job: QueryJob) -> None:
        from google.api_core.retry import Retry, if_exception_type

        # The timeout for `result` also applies to each request, so it must not be hours.
        waiting = if_exception_type(concurrent.futures.TimeoutError)
        Retry(waiting, initial=0.1, maximum=1, timeout=_JOB_TIMEOUT)(job.result)(
            timeout=REQUEST_TIMEOUT
        )

    @contextlib.contextmanager
    def _cancelled_if_stopped(self, job_id: str) -> Iterator[None]:
        from google.cloud.bigquery import DEFAULT_RETRY

        try:
            yield
        except BaseException as stopped:
            # An interrupt cancels the job. After an error, the job continues, and a retry finds it.
            if not isinstance(stopped, Exception):
                with contextlib.suppress(Exception):
                    self.client.cancel_job(
                        job_id,
                        location=self.location,
                        retry=DEFAULT_RETRY.with_timeout(_CANCEL_TIMEOUT),
                        timeout=_CANCEL_TIMEOUT,
                    )
            raise


class QueryRows:
    """The result rows of a successful query."""

    def __init__(self, client: Client, job: QueryJob) -> None:
        result = job.result(timeout=REQUEST_TIMEOUT)
        self.job_id: str = job.job_id
        self.total: int = result.total_rows  # as counted by BigQuery
        self.schema = tuple(result.schema)
        self.read_by = ""  # "REST" or "Storage Read API" once rows have been read
        self._client = client
        self._job = job

    def batches(
        self, check: Callable[[], object], warn: Callable[[str], None]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches, and read the next batch in the background."""
        with _storage_client(self._client) as storage:
            batches = self._read(storage, warn)

            def read_next() -> concurrent.futures.Future[pa.RecordBatch | None]:
                return submit(lambda: next(batches, None), "octogen-bigquery")

            # A thread waits for the server, so that the run can be stopped in the meantime.
            following = read_next()
            while True:
                wait_interruptibly(following, _SILENCE_TIMEOUT, check)
                if not following.done():
                    raise OctogenBigQueryUnreachableError(
                        f"BigQuery sent no rows for job {self.job_id} for "
                        f"{_SILENCE_TIMEOUT:.0f} seconds. Try again later."
                    )
                if (batch := following.result()) is None:
                    return
                following = read_next()
                yield batch

    def _read(self, storage: Any, warn: Callable[[str], None]) -> Iterator[pa.RecordBatch]:
        from google.api_core.exceptions import GoogleAPICallError

        if storage is not None:
            # Without limits, Google's client buffers two batches for each of 200 streams.
            batches = self._pages().to_arrow_iterable(storage, max_stream_count=4, max_queue_size=2)
            try:
                # Only the first batch can be rejected. Later, a switch to REST would repeat rows.
                first = next(batches, None)
            except GoogleAPICallError as error:
                warn(self._rejection(error))
            else:
                self.read_by = "Storage Read API"
                if first is not None:
                    yield first
                    yield from batches
                return
        self.read_by = "REST"
        yield from self._pages().to_arrow_iterable()

    def _pages(self) -> Any:
        return self._job.result(page_size=_PAGE_ROWS, timeout=REQUEST_TIMEOUT)

    def _rejection(self, error: Any) -> str:
        from google.api_core.exceptions import Forbidden

        advice = ""
        if isinstance(error, Forbidden):
            advice = named_cause(error) or (
                "Ask an administrator to grant these Google credentials "
                f"roles/bigquery.readSessionUser on project {self._job.project}."
            )
        code = with_reason(status_code(error), error)
        return (
            "Reading rows over REST, which is slower, because the Storage Read API rejected the "
            f"request ({code}: {shortened(error)}). {advice}"
        ).rstrip()


@contextlib.contextmanager
def _storage_client(client: Client) -> Iterator[Any]:
    """Open a Storage Read API client with the BigQuery client's credentials."""
    if os.environ.get("BIGQUERY_EMULATOR_HOST"):
        yield None  # the client would connect to Google
        return
    ensure = getattr(client, "_ensure_bqstorage_client", lambda: None)  # not a documented method
    storage: Any = ensure()
    try:
        yield storage
    finally:
        if storage is not None:
            storage.transport.close()  # also ends threads that wait for a silent stream
