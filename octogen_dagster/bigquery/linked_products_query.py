"""Assets that are queries over linked products, run and stored in BigQuery."""

from typing import Any

import dagster as dg

from octogen_dagster.bigquery.asset_queries import (
    DOLLARS_PER_TIB,
    job_origin,
    query_metadata,
)
from octogen_dagster.bigquery.query_jobs import MAX_BYTES_BILLED, QueryLimits
from octogen_dagster.bigquery.table_metadata import read_reported_table, table_metadata
from octogen_dagster.bigquery.table_query import write_query
from octogen_dagster.bigquery.tables import TableName, open_client, read_first_rows, read_table
from octogen_dagster.dagster_parts import inline_table, octogen_asset, permanent_errors_fail
from octogen_dagster.settings import require_extras

PREVIEW_ROWS = 10

_PRODUCTS = "{products}"
_LINKED_DATASET = "{linked_dataset}"


def query_linked_products(
    sql_template: str,
    *,
    name: str,
    linked_products: dg.AssetsDefinition,
    destination: str,
    max_bytes_billed: int | None = MAX_BYTES_BILLED,
    dollars_per_tib: float = DOLLARS_PER_TIB,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset of the result of a query over the linked products, as a table in BigQuery.

    The query runs in BigQuery, in the location of the destination's dataset. If it succeeds, its
    result replaces the table. The metadata has the table's columns, its first rows and the cost of
    the query.

    Args:
        sql_template: One SELECT, with `{products}` in place of the linked table's name. Other
            braces are left as they are.
        name: The asset's name.
        linked_products: An asset of `build_linked_products_asset`, or another one that reports
            `dagster/table_name`. The new asset has the same partitions.
        destination: The table to write, as `dataset.table` in the BigQuery resource's project or
            `project.dataset.table`; the dataset must exist. With partitions, it contains
            `{linked_dataset}`, the id of the linked dataset, so that each has a table of its own.
        max_bytes_billed: The bytes that the query may be billed for; None sets no limit. A query
            that reads more by BigQuery's estimate is not run.
        dollars_per_tib: The price of 2**40 bytes billed, in dollars; by default Google's list price
            of on-demand queries in the US.
        asset_arguments: Any other argument of `@dagster.asset`, such as `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: The template lacks `{products}`, the destination is not the name of a table or
            would be the same for all partitions, or the limit is not positive.
        MissingPackageError: The packages of the extra `bigquery` are not installed.
    """
    require_extras("query_linked_products", "bigquery")
    limits = QueryLimits(max_bytes_billed)
    _check_templates(name, sql_template, destination, linked_products)

    @octogen_asset(
        {
            "partitions_def": linked_products.partitions_def,
            "deps": [linked_products],
            "pool": None,
            "kinds": {"octogen", "bigquery"},
            "description": f"A query over {linked_products.key.to_user_string()}, in BigQuery.",
        },
        {"name": name, **asset_arguments},
    )
    def query(context: dg.AssetExecutionContext, bigquery: dg.ResourceParam[Any]) -> None:
        source = read_reported_table(context, linked_products.key)
        sql = _sql(sql_template, source)
        origin = job_origin(context)
        with permanent_errors_fail(), open_client(bigquery) as client:
            table = _destination(destination, source.dataset_id, client.project)
            written = write_query(client, sql, table, origin=origin, limits=limits)
            facts = read_table(client, table, origin=origin, limits=limits)
            first = read_first_rows(client, table, facts.schema, PREVIEW_ROWS)
        context.log.info(
            f"{table}: {facts.rows:,} rows in {written.seconds:.1f} s, "
            f"{written.billed_bytes:,} bytes billed."
        )
        context.add_asset_metadata(
            {
                **table_metadata(table, facts, partitioned=context.has_partition_key),
                "octogen/source_table": str(source),
                "octogen/sql": dg.MetadataValue.md(f"```sql\n{sql.strip()}\n```"),
                **query_metadata(written, dollars_per_tib),
                "octogen/preview": dg.MetadataValue.md(inline_table(first)),
            }
        )

    return query


def _check_templates(
    name: str, sql_template: str, destination: str, linked_products: dg.AssetsDefinition
) -> None:
    if _PRODUCTS not in sql_template:
        raise ValueError(
            f"Asset {name!r}: sql_template must contain {_PRODUCTS}, where the name of the linked "
            "table belongs."
        )
    if linked_products.partitions_def is not None and _LINKED_DATASET not in destination:
        raise ValueError(
            f"Asset {name!r}: destination must contain {_LINKED_DATASET}, or each partition would "
            f"overwrite the table of the others: {destination}_{_LINKED_DATASET}."
        )
    _destination(destination, "linked", "default-project")


def _sql(template: str, products: TableName) -> str:
    return template.replace(f"`{_PRODUCTS}`", _PRODUCTS).replace(_PRODUCTS, products.quoted)


def _destination(template: str, linked_dataset: str, default_project: str) -> TableName:
    return TableName.parse(template.replace(_LINKED_DATASET, linked_dataset), default_project)
