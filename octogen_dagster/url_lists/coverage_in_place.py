"""The coverage and the products of a URL list where they are: described and counted in BigQuery."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from octogen_dagster.assets.definition import Metadata
from octogen_dagster.bigquery.linked_products import describe_table, table_metadata
from octogen_dagster.bigquery.linked_tables import open_table
from octogen_dagster.bigquery.queries import REQUEST_TIMEOUT, query_metadata, run_query
from octogen_dagster.bigquery.table_checks import PRODUCT_COLUMNS, check_results
from octogen_dagster.bigquery.tables import TableName, last_materialization, reported_value
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors
from octogen_dagster.sharing.names import TABLE
from octogen_dagster.url_lists.export import (
    DATASET,
    EXPORTED_AT,
    NO_PRODUCTS_YET,
    Decorator,
    ListExport,
    coverage_sentence,
    data_version,
    last_exported_at,
    list_metadata,
    nothing_read,
    of_export,
    read_version,
)
from octogen_dagster.url_lists.matching import COVERED, NOT_COVERED

_SUMMARY = "octogen/summary"


def coverage_in_place(export: ListExport, decorate: Decorator) -> dg.AssetsDefinition:
    """Build the asset that counts the covered addresses of the last export."""

    @decorate
    def coverage(context: dg.AssetExecutionContext) -> Iterator[Any]:
        state = export.read_list(context)
        exported_at = last_exported_at(state)
        metadata, counts = list_metadata(state), {COVERED: 0, NOT_COVERED: 0}
        if exported_at is None:
            metadata[_SUMMARY] = dg.MetadataValue.md(coverage_sentence(counts, None))
        else:
            table, linked = export.link(context, state)
            with open_table(context, table, export.bigquery_resource_key) as (client, view):
                job = run_query(
                    context,
                    client,
                    _build_count(table),
                    subject=f"View {table}, whose addresses are counted",
                    location=view.location,
                    max_bytes_billed=export.max_bytes_billed,
                )
                with translate_google_errors(BIGQUERY, f"View {table}"):
                    ((covered, not_covered, newest),) = job.result(timeout=REQUEST_TIMEOUT)
            exported_at = newest or exported_at
            counts = {COVERED: covered, NOT_COVERED: not_covered}
            metadata = {
                _SUMMARY: dg.MetadataValue.md(coverage_sentence(counts, exported_at)),
                **{f"octogen/{status}": number for status, number in counts.items()},
                **metadata,
                EXPORTED_AT: dg.MetadataValue.timestamp(exported_at),
                **linked,
                **table_metadata(context, table, view, covered + not_covered),
                **query_metadata(job, export.dollars_per_tib),
            }
        context.add_asset_metadata(metadata)
        yield dg.MaterializeResult(data_version=data_version(state))
        yield from export.check_results(state, counts[COVERED], counts[NOT_COVERED], exported_at)

    return coverage


def products_in_place(
    export: ListExport,
    coverage: dg.AssetKey,
    columns: Sequence[str] | None,
    decorate: Decorator,
) -> dg.AssetsDefinition:
    """Build the asset that describes the view of products."""

    @decorate
    def products(context: dg.AssetExecutionContext) -> Iterator[Any]:
        record = last_materialization(context, coverage)
        dataset = reported_value(record, DATASET)
        metadata: Metadata = {_SUMMARY: dg.MetadataValue.md(NO_PRODUCTS_YET)}
        results = nothing_read()
        if dataset is not None:
            table = TableName.parse(f"{dataset}.{TABLE}")
            with open_table(context, table, export.bigquery_resource_key) as (client, view):
                rows, last_modified, described = describe_table(
                    context,
                    client,
                    table,
                    view,
                    modified_column=None,
                    max_bytes_billed=export.max_bytes_billed,
                    dollars_per_tib=export.dollars_per_tib,
                )
            metadata = {**of_export(record), **described}
            results = iter(
                check_results(
                    table,
                    rows,
                    view.schema,
                    columns=columns or PRODUCT_COLUMNS,
                    last_modified=last_modified,
                    max_age=None,
                )
            )
        context.add_asset_metadata(metadata)
        yield dg.MaterializeResult(data_version=read_version(record))
        yield from results

    return products


def _build_count(table: TableName) -> str:
    """The SELECT of the number of covered and other addresses, and of the time of the export."""
    return (
        "SELECT COUNTIF(covered) AS covered, COUNTIF(NOT covered) AS not_covered, "  # noqa: S608
        f"CAST(MAX(exported_at) AS TIMESTAMP) AS exported_at FROM `{table}`"
    )
