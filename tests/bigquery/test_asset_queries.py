"""The origin of a query in Dagster's runs, and its cost as metadata."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest

from octogen_dagster.bigquery.asset_queries import job_origin, query_metadata
from octogen_dagster.bigquery.query_jobs import FinishedQuery, JobOrigin

LISTINGS = dg.StaticPartitionsDefinition(["acme", "other"])

origins: list[JobOrigin] = []


@pytest.fixture(autouse=True)
def _no_origins() -> None:
    origins.clear()


@dg.asset(key_prefix="shop", partitions_def=LISTINGS, retry_policy=dg.RetryPolicy(max_retries=1))
def brands(context: dg.AssetExecutionContext) -> None:
    """Succeed in the third attempt."""
    origins.append(job_origin(context))
    if len(origins) < 3:
        raise RuntimeError("lost")


def make_job() -> dg.JobDefinition:
    job = dg.define_asset_job("brands_job", [brands], executor_def=dg.in_process_executor)
    return dg.Definitions([brands], jobs=[job]).resolve_job_def("brands_job")


def run(instance: dg.DagsterInstance, parent: str | None = None) -> dg.JobExecutionResult:
    return dg.execute_job(
        dg.reconstructable(make_job),
        instance=instance,
        tags={"dagster/partition": "acme"},
        reexecution_options=dg.ReexecutionOptions(parent) if parent else None,
    )


def test_runs_that_retry_each_other_share_an_origin_until_one_succeeds(
    instance: dg.DagsterInstance,
) -> None:
    first = run(instance).run_id
    second = run(instance, parent=first).run_id
    assert origins == [
        JobOrigin(first, first, "shop/brands", "acme"),
        JobOrigin(first, first, "shop/brands", "acme"),
        JobOrigin(second, first, "shop/brands", "acme"),
    ]

    third = run(instance, parent=second).run_id
    again = origins[-1]
    assert again.last_materialization
    assert again == replace(
        origins[0], run_id=third, last_materialization=again.last_materialization
    )


def test_the_cost_of_a_query_becomes_metadata() -> None:
    begin = datetime(2026, 1, 2, tzinfo=timezone.utc)
    job = SimpleNamespace(
        job_id="j", total_bytes_billed=2**39, started=begin, ended=begin + timedelta(seconds=1.5)
    )
    query = FinishedQuery(cast("Any", job), estimated_bytes=2**38)
    expected = {
        "octogen/job_id": "j",
        "octogen/estimated_bytes": 2**38,
        "octogen/billed_bytes": 2**39,
        "octogen/query_dollars": 3.125,
        "octogen/seconds": 1.5,
    }
    assert query_metadata(query) == expected
    assert query_metadata(query, 8.0) == {**expected, "octogen/query_dollars": 4.0}
    job.total_bytes_billed = None
    assert query_metadata(query)["octogen/query_dollars"] == 0
