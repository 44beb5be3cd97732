"""Connects a query to the run of an asset: where it comes from, what it cost as metadata."""

import dagster as dg

from octogen_dagster.bigquery.query_jobs import FinishedQuery, JobOrigin
from octogen_dagster.bigquery.table_metadata import last_materialization
from octogen_dagster.dagster_parts import Metadata

DOLLARS_PER_TIB = 6.25
"""Google's list price of on-demand queries in the US, since July 2023."""


def job_origin(context: dg.AssetExecutionContext) -> JobOrigin:
    """The origin of the queries of a run.

    Args:
        context: The context of the run.
    """
    last = last_materialization(context, context.asset_key)
    run = context.run
    return JobOrigin(
        run_id=run.run_id,
        root_run_id=run.root_run_id or run.run_id,
        asset=context.asset_key.to_user_string(),
        partition=context.partition_key if context.has_partition_key else None,
        last_materialization=None if last is None else str(last.storage_id),
    )


def query_metadata(query: FinishedQuery, dollars_per_tib: float = DOLLARS_PER_TIB) -> Metadata:
    """The job of a query, its bytes, its time and its price as metadata.

    Args:
        query: The query.
        dollars_per_tib: The price of 2**40 bytes billed, in dollars.
    """
    return {
        "octogen/job_id": str(query.job.job_id),
        "octogen/estimated_bytes": query.estimated_bytes,
        "octogen/billed_bytes": query.billed_bytes,
        "octogen/query_dollars": round(query.billed_bytes / 2**40 * dollars_per_tib, 6),
        "octogen/seconds": round(query.seconds, 3),
    }
