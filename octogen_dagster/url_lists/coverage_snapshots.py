"""The coverage and the products of a URL list as snapshots."""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, cast

import dagster as dg
import polars as pl

from octogen_dagster.assets.definition import Metadata, permanent_errors_fail
from octogen_dagster.bigquery.linked_snapshot import as_taken, query_view, refuse_restricted
from octogen_dagster.bigquery.linked_tables import open_table
from octogen_dagster.bigquery.linked_view import LinkedScan, build_select
from octogen_dagster.bigquery.table_checks import PRODUCT_COLUMNS, check_results
from octogen_dagster.bigquery.tables import (
    EXPORT_RESTRICTIONS,
    TableName,
    last_materialization,
    reported_value,
)
from octogen_dagster.frames.source import FrameSource, collected
from octogen_dagster.sharing.names import TABLE
from octogen_dagster.url_lists.export import (
    DATASET,
    EXPORTED_AT,
    NO_PRODUCTS_YET,
    NOT_EXPORTED,
    Decorator,
    ListExport,
    coverage_sentence,
    data_version,
    last_exported_at,
    list_metadata,
    matched_result,
    nothing_read,
    of_export,
    read_version,
)
from octogen_dagster.url_lists.matching import (
    COVERED,
    EXPORTED,
    NOT_COVERED,
    ProductJoin,
    count_addresses,
    coverage_of,
    no_products,
)


def coverage_asset(export: ListExport, decorate: Decorator) -> dg.AssetsDefinition:
    """Build the asset of the coverage, whose input `urls` is the table of the list."""

    @decorate
    def coverage(context: dg.AssetExecutionContext, urls: pl.DataFrame) -> Iterator[Any]:
        state = export.read_list(context)
        exported_at, exported, metadata = last_exported_at(state), None, list_metadata(state)
        if exported_at is not None:
            table, linked = export.link(context, state)
            restrictions: Any = linked.get(EXPORT_RESTRICTIONS)
            refuse_restricted(table, restrictions.value if restrictions else {})
            exported, of_query = _read_coverage(context, export, table)
            newest = exported["exported_at"].max()
            exported_at = cast("datetime", newest) if newest is not None else exported_at
            metadata |= {
                EXPORTED_AT: dg.MetadataValue.timestamp(exported_at),
                **linked,
                **of_query,
            }
        frame = coverage_of(urls, exported)
        counts = count_addresses(frame)
        summary = coverage_sentence(counts, exported_at)
        # Dagster shows what is first here first, and the IO manager's metadata after it.
        context.add_asset_metadata({"octogen/summary": dg.MetadataValue.md(summary), **metadata})
        source = FrameSource(frame.lazy(), metrics={"summary": summary, **counts})
        yield dg.MaterializeResult(
            value=as_taken(context, source, context.asset_key.to_user_string()),
            data_version=data_version(state),
        )
        yield from export.check_results(state, counts[COVERED], counts[NOT_COVERED], exported_at)

    return coverage


def products_asset(
    export: ListExport,
    coverage: dg.AssetKey,
    columns: Sequence[str] | None,
    decorate: Decorator,
) -> dg.AssetsDefinition:
    """Build the asset of the products, whose inputs are the coverage and the table of the list."""

    @decorate
    def products(
        context: dg.AssetExecutionContext, covered: pl.DataFrame, urls: pl.DataFrame
    ) -> Iterator[Any]:
        record = last_materialization(context, coverage)
        dataset = reported_value(record, DATASET)
        if dataset is None:
            yield from _not_exported(context, urls)
            return
        table = TableName.parse(f"{dataset}.{TABLE}")
        refuse_restricted(table, reported_value(record, EXPORT_RESTRICTIONS) or {})
        with open_table(context, table, export.bigquery_resource_key) as (client, view):
            rows, metadata = query_view(
                context,
                client,
                table,
                view,
                build_select(table, view.schema, columns, None),
                max_bytes_billed=export.max_bytes_billed,
                dollars_per_tib=export.dollars_per_tib,
            )
            context.add_asset_metadata({**of_export(record), **metadata})
            join = ProductJoin(urls, covered)
            scan = LinkedScan(rows, table, 0.0, None, join)
            # Dagster hands a result to the IO manager before it asks for what comes next.
            yield dg.MaterializeResult(
                value=as_taken(context, scan, str(table)), data_version=read_version(record)
            )
        yield from check_results(
            f"The export {table}",
            rows.total,
            rows.schema,
            columns=columns or PRODUCT_COLUMNS,
            last_modified=None,
            max_age=None,
        )
        yield matched_result(join.matched_fraction)

    return products


def _read_coverage(
    context: dg.AssetExecutionContext, export: ListExport, table: TableName
) -> tuple[pl.DataFrame, Metadata]:
    """Read the view of the coverage, which has up to 100,000 rows."""
    with open_table(context, table, export.bigquery_resource_key) as (client, view):
        rows, metadata = query_view(
            context,
            client,
            table,
            view,
            build_select(table, view.schema, list(EXPORTED), None),
            max_bytes_billed=export.max_bytes_billed,
            dollars_per_tib=export.dollars_per_tib,
        )
        log, stop = context.log, threading.Event()
        scan = LinkedScan(rows, table, 0.0, None)
        frame, _ = collected(scan, str(table), log.info, log.warning, stop)
    return frame.cast(EXPORTED), metadata


def _not_exported(context: dg.AssetExecutionContext, urls: pl.DataFrame) -> Iterator[Any]:
    """Publish that there are no products yet, unless there are some of an export before."""
    last = last_materialization(context, context.asset_key)
    if reported_value(last, "dagster/row_count"):
        context.log.warning(
            f"{NOT_EXPORTED}. The products that are there are of an earlier export, and stay as "
            "they are."
        )
    else:
        with permanent_errors_fail():
            products = no_products(urls)
        source = FrameSource(products.lazy(), metrics={"summary": NO_PRODUCTS_YET})
        subject = context.asset_key.to_user_string()
        yield dg.MaterializeResult(value=as_taken(context, source, subject))
    yield from nothing_read(matches=True)
