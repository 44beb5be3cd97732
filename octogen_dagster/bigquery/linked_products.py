"""Assets of linked datasets: what is in them, and queries over them. No product leaves BigQuery."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.asset_defaults import Metadata, octogen_asset
from octogen_dagster.bigquery.tables import (
    TableFacts,
    TableName,
    column_type,
    first_rows,
    read_table,
    write_query,
)
from octogen_dagster.previews import markdown_table
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

PRODUCT_COLUMNS = (
    "uuid",
    "catalog_key",
    "product_url",
    "title",
    "brand",
    "current_price",
    "in_stock",
)
"""Columns that Octogen documents of `products_current_v1`; there are more."""

PREVIEW_ROWS = 10

_TABLE_NAME = "dagster/table_name"
_PRODUCTS = "{products}"
_LINKED_DATASET = "{linked_dataset}"
_KINDS = {"octogen", "bigquery"}


def build_linked_products_asset(
    linked_datasets: dg.AssetsDefinition,
    *,
    name: str = "octogen_linked_products",
    max_age: timedelta | None = timedelta(days=2),
    modified_column: str | None = None,
    columns: Sequence[str] = PRODUCT_COLUMNS,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """An asset: the products of each linked dataset, where they are, with checks.

    It reports the number of rows, the columns and the last modification of the linked table, and
    reads nothing else. Its checks, of the partition materialized last:

    * `not_empty`: there are products;
    * `expected_columns`: the columns are there;
    * `fresh`: the last modification is not older than max_age (a warning).

    Where Octogen shares a view, BigQuery does not know when its rows changed: the newest value of a
    column must say so, and a query of that one column counts the rows.

    Args:
        linked_datasets: An asset of `build_linked_datasets_asset`, or another one that reports
            `dagster/table_name`; its partitions are this one's as well.
        name: The asset's name.
        max_age: How old the last modification may be; None leaves the check out.
        modified_column: The column whose newest value is the last modification; by default
            BigQuery's own for a table, and `exported_at` for a view that has it.
        columns: The columns to expect.
        asset_arguments: Any other argument of `@dagster.asset`, such as `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: max_age is not positive.
    """
    if max_age is not None and max_age <= timedelta():
        raise ValueError(f"max_age must be a positive timedelta or None, not {max_age!r}.")

    @octogen_asset(
        {
            "name": name,
            "partitions_def": linked_datasets.partitions_def,
            "deps": [linked_datasets],
            "check_specs": _check_specs(_key(name, asset_arguments), max_age),
            "pool": None,
            "kinds": _KINDS,
            "description": "The products of each linked dataset, in BigQuery.",
        },
        asset_arguments,
    )
    def linked_products(
        context: dg.AssetExecutionContext, bigquery: dg.ResourceParam[Any]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        table = _linked_table(context, linked_datasets.key)
        with _client(bigquery) as client:
            facts = read_table(client, table, modified_column)
        return dg.MaterializeResult(
            metadata=_table_metadata(context, table, facts) | _modification(facts),
            check_results=_check_results(table, facts, max_age, columns),
        )

    return linked_products


def query_linked_products(
    sql_template: str,
    *,
    name: str,
    linked_products: dg.AssetsDefinition,
    destination: str,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """An asset: the result of a query over the linked products, as a table in BigQuery.

    The query runs in BigQuery, in the location of the destination's dataset, and what the table
    held before is replaced when it succeeds. The metadata has its columns, its first rows and what
    the query cost.

    Args:
        sql_template: One SELECT, with `{products}` where the linked table's name belongs. Other
            braces are left as they are.
        name: The asset's name.
        linked_products: An asset of `build_linked_products_asset`, or another one that reports
            `dagster/table_name`; its partitions are this one's as well.
        destination: The table to write, as `dataset.table` in the BigQuery resource's project or
            `project.dataset.table`; the dataset must be there. With partitions, it contains
            `{linked_dataset}`, the id of the linked dataset, so that each has a table of its own.
        asset_arguments: Any other argument of `@dagster.asset`, such as `group_name`,
            `automation_condition`, `retry_policy`.

    Raises:
        ValueError: The template lacks `{products}`, or the destination is not the name of a table
            or would be the same for all partitions.
    """
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

    @octogen_asset(
        {
            "name": name,
            "partitions_def": linked_products.partitions_def,
            "deps": [linked_products],
            "pool": None,
            "kinds": _KINDS,
            "description": f"A query over {linked_products.key.to_user_string()}, in BigQuery.",
        },
        asset_arguments,
    )
    def query(
        context: dg.AssetExecutionContext, bigquery: dg.ResourceParam[Any]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
        source = _linked_table(context, linked_products.key)
        sql = _sql(sql_template, source)
        with _client(bigquery) as client:
            table = _destination(destination, source.dataset_id, client.project)
            written = write_query(client, sql, table, _labels(context))
            facts = read_table(client, table)
            first = first_rows(client, table, facts.schema, PREVIEW_ROWS)
        context.log.info(
            f"{table}: {facts.rows:,} rows in {written.seconds:.1f} s, "
            f"{written.billed_bytes:,} bytes billed."
        )
        return dg.MaterializeResult(
            metadata={
                **_table_metadata(context, table, facts),
                "octogen/source_table": str(source),
                "octogen/sql": dg.MetadataValue.md(f"```sql\n{sql.strip()}\n```"),
                "octogen/job_id": written.job_id,
                "octogen/estimated_bytes": written.estimated_bytes,
                "octogen/billed_bytes": written.billed_bytes,
                "octogen/seconds": round(written.seconds, 3),
                "octogen/preview": dg.MetadataValue.md(markdown_table(first)),
            }
        )

    return query


def _linked_table(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> TableName:
    """The table that the last materialization of an asset reported, of the same partition.

    Raises:
        dagster.Failure: There is none.
    """
    partition = context.partition_key if context.has_partition_key else None
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(upstream, asset_partitions=partition and [partition]), limit=1
    ).records
    reported = None
    if records and (materialization := records[0].asset_materialization):
        reported = materialization.metadata.get(_TABLE_NAME)
    if reported is None:
        asset = upstream.to_user_string()
        of = "" if partition is None else f", partition {partition!r}"
        raise dg.Failure(
            f"{asset}{of}: no linked dataset is known. Its last materialization says which one it "
            f"is, as {_TABLE_NAME}, and there is "
            f"{'none that does' if records else 'none'}. Materialize {asset}{of} first.",
            allow_retries=False,
        )
    return TableName.parse(str(reported.value))


@contextlib.contextmanager
def _client(bigquery: Any) -> "Iterator[Client]":
    """The client of a `dagster_gcp.BigQueryResource`, which is not imported: it costs seconds."""
    with (
        translate_google_errors(BIGQUERY, "BigQuery"),
        bigquery.get_client() as client,
        contextlib.closing(client),
    ):
        yield client


def _sql(template: str, products: TableName) -> str:
    return template.replace(f"`{_PRODUCTS}`", _PRODUCTS).replace(_PRODUCTS, products.quoted)


def _destination(template: str, linked_dataset: str, default_project: str) -> TableName:
    return TableName.parse(template.replace(_LINKED_DATASET, linked_dataset), default_project)


def _labels(context: dg.AssetExecutionContext) -> dict[str, str]:
    labels = {
        "dagster_asset": context.asset_key.to_user_string(),
        "dagster_run": context.run.run_id,
    }
    if context.has_partition_key:
        labels["dagster_partition"] = context.partition_key
    # What BigQuery allows in a label.
    return {key: re.sub(r"[^a-z0-9_-]", "_", value.lower())[:63] for key, value in labels.items()}


def _table_metadata(
    context: dg.AssetExecutionContext, table: TableName, facts: TableFacts
) -> Metadata:
    row_count = "partition_row_count" if context.has_partition_key else "row_count"
    return {
        _TABLE_NAME: str(table),
        f"dagster/{row_count}": facts.rows,
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(field.name, column_type(field), description=field.description)
                for field in facts.schema
            ]
        ),
        "octogen/table_type": facts.kind,
        "octogen/location": facts.location,
    }


def _modification(facts: TableFacts) -> Metadata:
    if facts.last_modified is None:
        return {}
    return {
        "octogen/last_modified": dg.MetadataValue.timestamp(facts.last_modified),
        "octogen/age_hours": _hours(_age(facts.last_modified)),
    }


def _key(name: str, asset_arguments: Mapping[str, Any]) -> dg.AssetKey:
    prefix = asset_arguments.get("key_prefix") or []
    return dg.AssetKey([*([prefix] if isinstance(prefix, str) else prefix), name])


def _check_specs(asset: dg.AssetKey, max_age: timedelta | None) -> list[dg.AssetCheckSpec]:
    specs = [
        dg.AssetCheckSpec("not_empty", asset=asset, description="There are products."),
        dg.AssetCheckSpec(
            "expected_columns", asset=asset, description="The expected columns are there."
        ),
    ]
    if max_age is not None:
        description = f"The products changed in the last {_hours(max_age):g} hours."
        specs.append(dg.AssetCheckSpec("fresh", asset=asset, description=description))
    return specs


def _check_results(
    table: TableName, facts: TableFacts, max_age: timedelta | None, columns: Sequence[str]
) -> list[dg.AssetCheckResult]:
    there = {field.name.casefold() for field in facts.schema}
    missing = [column for column in columns if column.casefold() not in there]
    results = [
        dg.AssetCheckResult(
            passed=facts.rows > 0,
            check_name="not_empty",
            description=f"{table} has {facts.rows:,} rows.",
        ),
        dg.AssetCheckResult(
            passed=not missing,
            check_name="expected_columns",
            description=f"{table} lacks {', '.join(missing)}."
            if missing
            else f"{table} has all {len(columns)} expected columns.",
        ),
    ]
    if max_age is not None:
        results.append(_freshness(table, facts.last_modified, max_age))
    return results


def _freshness(
    table: TableName, last_modified: datetime | None, max_age: timedelta
) -> dg.AssetCheckResult:
    if last_modified is None:
        description = (
            f"{table} does not say when its rows changed. Name the column that does with "
            "modified_column, or leave this check out with max_age=None."
        )
    else:
        description = (
            f"{table} changed {_hours(_age(last_modified)):g} hours ago; {_hours(max_age):g} are "
            "allowed."
        )
    return dg.AssetCheckResult(
        passed=last_modified is not None and _age(last_modified) <= max_age,
        check_name="fresh",
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
    )


def _age(moment: datetime) -> timedelta:
    return datetime.now(timezone.utc) - moment


def _hours(time: timedelta) -> float:
    return round(time / timedelta(hours=1), 1)
