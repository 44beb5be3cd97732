"""A linked dataset, and the BigQuery that has it."""

import dagster as dg

from octogen_dagster import AnalyticsHubResource
from tests.servers.bigquery import PROJECT, VIEW

BIGQUERY = {"bigquery": AnalyticsHubResource(project=PROJECT)}


@dg.asset
def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(metadata={"dagster/table_name": VIEW})
