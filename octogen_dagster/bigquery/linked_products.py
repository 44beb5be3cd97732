"""The asset of linked products: it describes and checks each linked table where it is."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg

from octogen_dagster.bigquery.asset_queries import (
    DOLLARS_PER_TIB,
    job_origin,
    query_metadata,
)
from octogen_dagster.bigquery.query_jobs import MAX_BYTES_BILLED, QueryLimits
from octogen_dagster.bigquery.table_checks import build_check_specs, check_results
from octogen_dagster.bigquery.table_metadata import read_reported_table, table_metadata
from octogen_dagster.bigquery.tables import TableFacts, open_client, read_table
from octogen_dagster.dagster_parts import (
    Metadata,
    asset_arguments_of,
    asset_key,
    hours,
    octogen_asset,
    permanent_errors_fail,
    require_max_age,
)
from octogen_dagster.settings import require_extras

PRODUCT_COLUMNS = (
    "uuid",
    "catalog_key",
    "product_url",
    "title",
    "brand",
    "current_price",
    "in_stock",
)
"""The columns that Octogen documents of `products_current_v1`; it has more."""


def build_linked_products_asset(
    linked_datasets: dg.AssetsDefinition,
    *,
    name: str | dg.AssetSpec = "octogen_linked_products",
    max_age: timedelta | None = timedelta(days=2),
    modified_column: str | None = None,
    columns: Sequence[str] = PRODUCT_COLUMNS,
    max_bytes_billed: int | None = MAX_BYTES_BILLED,
    dollars_per_tib: float = DOLLARS_PER_TIB,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset of the products of each linked dataset. No product leaves BigQuery.

    It reports the number of rows, the columns and the last modification of the linked table, and
    reads nothing else. Each partition has checks of its own:

    * `not_empty`: there are products;
    * `expected_columns`: the columns are there;
    * `fresh`: the last modification is not older than max_age (a warning).

    If Octogen shares a view, BigQuery does not know when its rows changed. Then the newest value of
    a column is taken for the last modification, and the query of that column counts the rows. The
    same is done for a table whose number of rows BigQuery does not say. The metadata has the cost
    of the query.

    Args:
        linked_datasets: An asset of `build_linked_datasets_asset`, or another one that reports
            `dagster/table_name`. The new asset has the same partitions.
        name: The asset's name or `dagster.AssetSpec`.
        max_age: The maximum age of the last modification; None leaves the check out.
        modified_column: The column whose newest value is the last modification; by default
            BigQuery's own for a table, and `exported_at` for a view that has it.
        columns: The columns to expect.
        max_bytes_billed: The bytes that the query may be billed for; None sets no limit. A query
            that reads more by BigQuery's estimate is not run.
        dollars_per_tib: The price of 2**40 bytes billed, in dollars; by default Google's list price
            of on-demand queries in the US.
        asset_arguments: Any other argument of `@dagster.asset`, such as `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: max_age or max_bytes_billed is not positive.
        MissingPackageError: The packages of the extra `bigquery` are not installed.
    """
    require_extras("build_linked_products_asset", "bigquery")
    limits = QueryLimits(max_bytes_billed)
    require_max_age(max_age)
    given = asset_arguments_of(name, asset_arguments)
    partitions = given.pop("partitions_def", linked_datasets.partitions_def)

    @octogen_asset(
        {
            "partitions_def": partitions,
            "deps": [linked_datasets],
            "check_specs": build_check_specs(asset_key(given), max_age, partitions),
            "pool": None,
            "kinds": {"octogen", "bigquery"},
            "description": "The number, the columns and the last change of the products in each "
            "linked dataset. The products stay in BigQuery.",
        },
        given,
    )
    def linked_products(
        context: dg.AssetExecutionContext, bigquery: dg.ResourceParam[Any]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        table = read_reported_table(context, linked_datasets.key)
        with permanent_errors_fail(), open_client(bigquery) as client:
            facts = read_table(
                client, table, modified_column, origin=job_origin(context), limits=limits
            )
        modified = facts.last_modified
        age = None if modified is None else datetime.now(timezone.utc) - modified
        context.add_asset_metadata(
            {
                **table_metadata(table, facts, partitioned=context.has_partition_key),
                **_modification(facts, age),
                **(query_metadata(facts.query, dollars_per_tib) if facts.query else {}),
            }
        )
        return dg.MaterializeResult(
            check_results=check_results(table, facts, columns=columns, age=age, max_age=max_age),
        )

    return linked_products


def _modification(facts: TableFacts, age: timedelta | None) -> Metadata:
    if facts.last_modified is None or age is None:
        return {}
    return {
        "octogen/last_modified": dg.MetadataValue.timestamp(facts.last_modified),
        "octogen/age_hours": hours(age),
    }
