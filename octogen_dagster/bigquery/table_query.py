"""Writes the result of a query to a BigQuery table. Knows no Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.bigquery.query_jobs import (
    REQUEST_TIMEOUT,
    FinishedQuery,
    JobOrigin,
    QueryLimits,
    run_query,
)
from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

    from octogen_dagster.bigquery.tables import TableName


def write_query(
    client: Client,
    sql: str,
    destination: TableName,
    *,
    origin: JobOrigin,
    limits: QueryLimits,
    timeout: float = REQUEST_TIMEOUT,
) -> FinishedQuery:
    """Run a query in BigQuery and replace a table by its result.

    A query that fails leaves the table as it was.

    Args:
        client: BigQuery.
        sql: One SELECT.
        destination: The table; its dataset must exist.
        origin: The run that the query belongs to.
        limits: The limits of bytes and time.
        timeout: Seconds for one attempt of a request; the query may run longer.

    Raises:
        OctogenBigQueryUnavailableError: BigQuery did not answer in time.
        OctogenBigQueryError: The dataset cannot be written to, or the query is wrong, failed or
            exceeds a limit.
    """
    with translate_google_errors(BIGQUERY, f"Dataset {destination.dataset}"):
        dataset = client.get_dataset(destination.dataset, timeout=timeout)
    if dataset.to_api_repr().get("type") == "LINKED":
        raise OctogenBigQueryError(
            f"Table {destination}: {destination.dataset} is a linked dataset, which is read-only. "
            "Write to a dataset of your own in the same location."
        )
    return run_query(
        client,
        sql,
        subject=f"The query into {destination}, in location {dataset.location}",
        origin=origin,
        limits=limits,
        location=dataset.location,
        destination=str(destination),
        timeout=timeout,
    )
