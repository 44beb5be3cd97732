"""Runs queries in BigQuery within limits, as jobs that a retried run finds. Knows no Dagster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import re
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, cast

from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing.google_errors import (
    BIGQUERY,
    shortened,
    translate_google_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.bigquery import Client, QueryJob, QueryJobConfig

MAX_BYTES_BILLED = 100 * 10**9
"""The bytes that one query may be billed for, unless the user sets another limit."""

REQUEST_TIMEOUT = 60.0
"""Seconds for one attempt of a request."""

MAX_ATTEMPTS = 20
"""Jobs of one query and run that may fail, retries of the run included."""

_CANCEL_TIMEOUT = 10.0
_LOOKUP_TIMEOUT = 60.0
_MAX_REUSE_AGE = timedelta(hours=24)
"""BigQuery keeps the result of a query without a destination for this long."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """The limits of one query.

    Attributes:
        max_bytes_billed: The maximum number of bytes billed; None sets no limit.
        job_timeout: Seconds after which its job is cancelled. BigQuery has a limit of 6 hours.

    Raises:
        ValueError: max_bytes_billed is not a positive whole number.
    """

    max_bytes_billed: int | None = MAX_BYTES_BILLED
    job_timeout: float = 6 * 3600.0

    def __post_init__(self) -> None:
        limit = self.max_bytes_billed
        if limit is not None and (not isinstance(limit, int) or limit <= 0):
            raise ValueError(
                "max_bytes_billed must be a positive whole number of bytes, or None for no limit, "
                f"not {limit!r}."
            )


@dataclass(frozen=True, slots=True)
class JobOrigin:
    """The run of an asset that a query belongs to.

    Attributes:
        run_id: The id of the run.
        root_run_id: The id of the first run, of those that retry it. They share their jobs.
        asset: The asset's key.
        partition: The partition; None without partitions.
        last_materialization: The id of the partition's last materialization. A run that is executed
            again after it succeeded has another one, and therefore jobs of its own.
    """

    run_id: str
    root_run_id: str
    asset: str
    partition: str | None = None
    last_materialization: str | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Labels of a job that lead back to the run, in the characters that BigQuery allows."""
        labels = {"dagster_asset": self.asset, "dagster_run": self.run_id}
        if self.partition is not None:
            labels["dagster_partition"] = self.partition
        return {
            key: re.sub(r"[^a-z0-9_-]", "_", value.lower())[:63] for key, value in labels.items()
        }


@dataclass(frozen=True, slots=True)
class FinishedQuery:
    """A query that has succeeded.

    Attributes:
        job: Its job.
        estimated_bytes: The bytes to be read, estimated by a dry run.
    """

    job: QueryJob
    estimated_bytes: int

    @property
    def billed_bytes(self) -> int:
        """The bytes that BigQuery bills; 0 for a result from its cache."""
        return self.job.total_bytes_billed or 0

    @property
    def seconds(self) -> float:
        """The time from the job's start to its end."""
        return float((self.job.ended - self.job.started).total_seconds())


def run_query(
    client: Client,
    sql: str,
    *,
    subject: str,
    origin: JobOrigin,
    limits: QueryLimits,
    location: str,
    destination: str | None = None,
    timeout: float = REQUEST_TIMEOUT,
) -> FinishedQuery:
    """Run one SELECT and wait for its end, or find the job of a run that this one retries.

    A dry run comes first. It costs nothing, and its estimate must be within the limit. The job has
    the limit as well, and its id is derived from the origin, the query and the destination. If a
    job of this id exists, its result is used: a retried run does not pay again. A job that failed,
    is older than 24 hours or has lost its result is followed by the next attempt. If the process is
    interrupted, the job is cancelled.

    Args:
        client: BigQuery.
        sql: One SELECT.
        subject: The query's name in messages, as "The query into a.b.c".
        origin: The run that the query belongs to.
        limits: The limits of bytes and time.
        location: The location to run it in.
        destination: The table to replace by the result, as `project.dataset.table`. Without it the
            result is kept by BigQuery for 24 hours.
        timeout: Seconds for one attempt of a request.

    Raises:
        OctogenBigQueryUnavailableError: BigQuery did not answer in time.
        OctogenBigQueryError: The query is not one SELECT, exceeds a limit, is wrong or failed.
    """
    from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY

    query = _Query(client, sql, subject, origin, limits, location, destination, timeout)
    with translate_google_errors(BIGQUERY, subject):
        estimated_bytes = query.estimate()
        # Google's client repeats failures of BigQuery itself only for jobs with random ids.
        job = DEFAULT_JOB_RETRY(query.run)()
    return FinishedQuery(job, estimated_bytes)


@dataclass(frozen=True, slots=True)
class _Query:
    client: Client
    sql: str
    subject: str
    origin: JobOrigin
    limits: QueryLimits
    location: str
    destination: str | None
    timeout: float

    def estimate(self) -> int:
        """The bytes to be read, by a dry run that checks the statement and the limit."""
        from google.cloud.bigquery import QueryJobConfig

        plan = self.client.query(
            self.sql,
            job_config=QueryJobConfig(
                dry_run=True, use_query_cache=False, labels=self.origin.labels
            ),
            location=self.location,
            timeout=self.timeout,
        )
        if plan.statement_type != "SELECT":
            raise OctogenBigQueryError(
                f"{self.subject}: it is {plan.statement_type}, and only one SELECT is run. Leave "
                "out CREATE, INSERT, DECLARE and further statements."
            )
        estimated: int = plan.total_bytes_processed or 0
        limit = self.limits.max_bytes_billed
        if limit is not None and estimated > limit:
            raise OctogenBigQueryError(
                f"{self.subject}: it reads {estimated:,} bytes by BigQuery's estimate, and "
                f"max_bytes_billed is {limit:,}. It was not run and nothing was billed. Read fewer "
                "columns or partitions of the table, or raise max_bytes_billed of the asset. The "
                f"query: {shortened(self.sql)}"
            )
        return estimated

    def run(self) -> QueryJob:
        """The job of the first attempt that succeeds or that has succeeded."""
        for attempt in range(MAX_ATTEMPTS):
            job_id = f"{self._job_id}_{attempt}"
            with self._cancelled_by_interrupt(job_id):
                if job := self._attempt(job_id):
                    return job
        last = self.client.get_job(job_id, location=self.location, timeout=self.timeout)
        failure = last.error_result or {"reason": "gone", "message": "its result is gone"}
        raise OctogenBigQueryError(
            f"{self.subject}: {MAX_ATTEMPTS} jobs of this run and its retries failed, the last one "
            f"({failure.get('reason')}: {shortened(failure.get('message'))}). Look up job {job_id} "
            "in BigQuery, and start a new run."
        )

    @property
    def _job_id(self) -> str:
        origin = self.origin
        parts = [
            *(origin.root_run_id, origin.asset, origin.partition, origin.last_materialization),
            *(self.sql, self.location, self.destination),
        ]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return f"octogen_dagster_{digest[:32]}"

    def _config(self) -> QueryJobConfig:
        from google.cloud.bigquery import QueryJobConfig, WriteDisposition

        config = QueryJobConfig(labels=self.origin.labels)
        config.job_timeout_ms = int(self.limits.job_timeout * 1000)
        if self.limits.max_bytes_billed is not None:
            config.maximum_bytes_billed = self.limits.max_bytes_billed
        if self.destination is not None:
            config.destination = self.destination
            config.write_disposition = WriteDisposition.WRITE_TRUNCATE
        return config

    def _attempt(self, job_id: str) -> QueryJob | None:
        """The job, started or found; None if the job that was found has no result to use."""
        from google.api_core.exceptions import Conflict, GoogleAPICallError

        try:
            job = self.client.query(
                self.sql,
                job_config=self._config(),
                job_id=job_id,
                job_retry=None,
                location=self.location,
                timeout=self.timeout,
            )
        except Conflict:
            job = self._existing_job(job_id)
        else:
            self._wait(job)
            return job
        if not job.done(reload=False):
            try:
                self._wait(job)
            except GoogleAPICallError:
                job.reload(timeout=self.timeout)
                if job.error_result is None:
                    raise
        return job if self._has_result(job) else None

    def _existing_job(self, job_id: str) -> QueryJob:
        """The job of an id that is taken. BigQuery may not find it at once."""
        from google.api_core.exceptions import NotFound
        from google.api_core.retry import Retry, if_exception_type

        lookup = Retry(if_exception_type(NotFound), initial=0.1, timeout=_LOOKUP_TIMEOUT)
        job = lookup(self.client.get_job)(job_id, location=self.location, timeout=self.timeout)
        return cast("QueryJob", job)

    def _has_result(self, job: QueryJob) -> bool:
        from google.api_core.exceptions import NotFound

        if job.error_result is not None or job.destination is None:
            return False
        if datetime.now(timezone.utc) - job.ended > _MAX_REUSE_AGE:
            return False
        try:
            self.client.get_table(job.destination, timeout=self.timeout)
        except NotFound:  # a result that has expired, or a table that was deleted
            return False
        return True

    def _wait(self, job: QueryJob) -> None:
        deadline = time.monotonic() + self.limits.job_timeout
        while True:
            with contextlib.suppress(concurrent.futures.TimeoutError):
                job.result(timeout=self.timeout)
                return
            if time.monotonic() >= deadline:
                self._cancel(job.job_id)
                # A retry would run as long again, and what ran may be billed.
                raise OctogenBigQueryError(
                    f"{self.subject}: job {job.job_id} has not ended after "
                    f"{self.limits.job_timeout:,.0f} seconds and was cancelled. Let the query read "
                    "less, or start a new run when BigQuery is less busy."
                )

    @contextlib.contextmanager
    def _cancelled_by_interrupt(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException as stopped:
            if not isinstance(stopped, Exception):  # a run that is terminated
                self._cancel(job_id)
            raise

    def _cancel(self, job_id: str) -> None:
        from google.cloud.bigquery import DEFAULT_RETRY

        with contextlib.suppress(Exception):
            self.client.cancel_job(
                job_id,
                location=self.location,
                retry=DEFAULT_RETRY.with_timeout(_CANCEL_TIMEOUT),
                timeout=_CANCEL_TIMEOUT,
            )
