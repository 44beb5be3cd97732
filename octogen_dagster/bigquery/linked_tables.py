"""Assets over the tables of linked datasets: how they are built, and how they open a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.assets.definition import (
    asset_arguments_of,
    asset_key,
    octogen_asset,
    permanent_errors_fail,
    require_asset,
    require_max_age,
)
from octogen_dagster.bigquery.queries import REQUEST_TIMEOUT, require_max_bytes_billed
from octogen_dagster.bigquery.table_checks import build_check_specs
from octogen_dagster.bigquery.tables import TableName, open_client
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, Table


def linked_table_asset(
    builder: str,
    linked_datasets: dg.AssetsDefinition,
    name: str | dg.AssetSpec,
    asset_arguments: Mapping[str, Any],
    *,
    max_age: timedelta | None,
    max_bytes_billed: int | None,
    bigquery_resource_key: str,
    **own: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return the decorator of an asset with a partition and checks for each linked table.

    `own` are further arguments of the builder.
    """
    require_asset(linked_datasets, "linked_datasets")
    require_extras(builder, "bigquery")
    require_max_bytes_billed(max_bytes_billed)
    require_max_age(max_age)
    given = asset_arguments_of(name, asset_arguments)
    partitions = given.pop("partitions_def", linked_datasets.partitions_def)
    arguments = {
        "partitions_def": partitions,
        "deps": [linked_datasets],
        "check_specs": build_check_specs(asset_key(given), max_age, partitions),
        "required_resource_keys": {bigquery_resource_key},
        "pool": None,
        "kinds": {"octogen", "bigquery"},
    }
    return octogen_asset(arguments | own, given)


@contextmanager
def open_table(
    context: dg.AssetExecutionContext, table: TableName, bigquery_resource_key: str
) -> Iterator[tuple[Client, Table]]:
    """Open a client for a table, and read what BigQuery says of the table.

    In the block, errors that last until somebody acts are failures that are not retried.
    """
    # `context.resources` has what the resource makes of itself: a client that nobody would close.
    bigquery = context.resources.original_resource_dict[bigquery_resource_key]
    with permanent_errors_fail(), open_client(bigquery) as client:
        with translate_google_errors(BIGQUERY, f"Table {table}"):
            found = client.get_table(str(table), timeout=REQUEST_TIMEOUT)
        yield client, found
