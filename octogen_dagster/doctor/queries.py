"""The check of queries in BigQuery, by a dry run, which costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octogen_dagster.bigquery.tables import open_client
from octogen_dagster.doctor.findings import Check, Finding
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

SUBJECT = "Queries"


def check_queries(bigquery: Any, tables: Sequence[str], timeout: float) -> Check:
    """Check that a query may be run, of a linked table if there is one.

    Args:
        bigquery: A `dagster_gcp.BigQueryResource`.
        tables: The linked tables that there are, as `project.dataset.table`.
        timeout: Seconds for the request.

    Raises:
        OctogenBigQueryError: The query would be refused.
    """
    from google.cloud.bigquery import QueryJobConfig

    # The names come from Analytics Hub and are checked.
    sql = f"SELECT COUNT(*) FROM `{tables[0]}`" if tables else "SELECT 1"  # noqa: S608
    with open_client(bigquery) as client:
        subject = f"A query in project {client.project}"
        with translate_google_errors(BIGQUERY, subject):
            job = client.query(
                sql,
                job_config=QueryJobConfig(dry_run=True, use_query_cache=False),
                timeout=timeout,
                retry=None,  # type: ignore[arg-type]  # None turns retries off
                job_retry=None,
            )
        yield Finding(
            SUBJECT,
            "ok",
            f"`{sql}` may be run in project {client.project}; it would read "
            f"{job.total_bytes_processed or 0:,} bytes.",
        )
