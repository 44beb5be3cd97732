"""Writes the result of a query to a BigQuery table. Knows no Dagster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from octogen_dagster.bigquery.tables import REQUEST_TIMEOUT, TableName
from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.cloud.bigquery import Client


@dataclass(frozen=True, slots=True)
class WrittenQuery:
    """The facts of a query that was run.

    Attributes:
        job_id: The id of the job that wrote the table.
        location: The location in which it ran.
        estimated_bytes: The bytes to be read, estimated by a dry run.
        billed_bytes: The bytes that BigQuery bills.
        seconds: The time from its start to its end.
    """

    job_id: str
    location: str
    estimated_bytes: int
    billed_bytes: int
    seconds: float


def write_query(
    client: Client,
    sql: str,
    destination: TableName,
    labels: Mapping[str, str],
    *,
    timeout: float = REQUEST_TIMEOUT,
) -> WrittenQuery:
    """Run a query in BigQuery and replace a table by its result.

    A query that fails leaves the table as it was.

    Args:
        client: BigQuery.
        sql: One SELECT.
        destination: The table; its dataset must exist.
        labels: Labels of the job.
        timeout: Seconds for one attempt of a request; the query may run longer.

    Raises:
        OctogenBigQueryError: The dataset cannot be written to, or the query is wrong or failed.
    """
    from google.cloud.bigquery import QueryJobConfig, WriteDisposition

    with translate_google_errors(BIGQUERY, f"Dataset {destination.dataset}"):
        dataset = client.get_dataset(destination.dataset, timeout=timeout)
    if dataset.to_api_repr().get("type") == "LINKED":
        raise OctogenBigQueryError(
            f"Table {destination}: {destination.dataset} is a linked dataset, which is read-only. "
            "Write to a dataset of your own in the same location."
        )
    location = dataset.location
    with translate_google_errors(BIGQUERY, f"The query into {destination}, in location {location}"):
        plan = client.query(
            sql,
            job_config=QueryJobConfig(dry_run=True, use_query_cache=False),
            location=location,
            timeout=timeout,
        )
        if plan.statement_type != "SELECT":
            raise OctogenBigQueryError(
                f"The query into {destination} is {plan.statement_type}, and only one SELECT can "
                "be written to a table. Leave out CREATE, INSERT, DECLARE and further statements."
            )
        job = client.query(
            sql,
            job_config=QueryJobConfig(
                destination=str(destination),
                write_disposition=WriteDisposition.WRITE_TRUNCATE,
                labels=dict(labels),
            ),
            location=location,
            timeout=timeout,
        )
        try:
            job.result()
        except BaseException as stopped:
            if not isinstance(stopped, Exception):  # a run that is terminated
                job.cancel()
            raise
    return WrittenQuery(
        job_id=job.job_id,
        location=job.location,
        estimated_bytes=plan.total_bytes_processed or 0,
        billed_bytes=job.total_bytes_billed or 0,
        seconds=(job.ended - job.started).total_seconds(),
    )
