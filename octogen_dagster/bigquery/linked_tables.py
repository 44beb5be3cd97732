"""LinkedTables: shared code for assets that query linked tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from octogen_dagster.assets.definition import (
    asset_arguments_of,
    asset_key,
    permanent_errors_fail,
    require_asset,
    require_max_age,
)
from octogen_dagster.bigquery.queries import REQUEST_TIMEOUT, require_max_bytes_billed, run_query
from octogen_dagster.bigquery.table_checks import build_check_specs, check_results
from octogen_dagster.bigquery.tables import (
    TableName,
    find_modified_column,
    open_client,
    read_reported_table,
)
from octogen_dagster.errors import dagster_private
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, QueryJob, SchemaField, Table


class OpenTable(NamedTuple):
    """A linked table with an open BigQuery client.

    `exported_at` is the export time that the upstream asset reported.
    """

    client: Client
    name: TableName
    info: Table
    exported_at: float | None


@dataclass(frozen=True)
class LinkedTables:
    """Settings for an asset that queries one view in each linked dataset."""

    linked_datasets: dg.AssetsDefinition
    columns: Sequence[str]
    max_age: timedelta | None
    modified_column: str | None
    max_bytes_billed: int | None
    bigquery_resource_key: str
    view: str | None = None

    def asset_arguments(
        self, builder: str, name: str | dg.AssetSpec, given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Check the settings. Return the default asset arguments and the user's arguments."""
        require_asset(self.linked_datasets, "linked_datasets")
        require_extras(builder, "bigquery")
        require_max_bytes_billed(self.max_bytes_billed)
        require_max_age(self.max_age)
        given = asset_arguments_of(name, given)
        partitions = given.pop("partitions_def", self.linked_datasets.partitions_def)
        own = {
            "partitions_def": partitions,
            "deps": [self.linked_datasets],
            "check_specs": build_check_specs(asset_key(given), self.max_age, partitions),
            "required_resource_keys": {self.bigquery_resource_key},
            "pool": None,
            "kinds": {"octogen", "bigquery"},
        }
        return own, given

    @contextmanager
    def opened(
        self, context: dg.AssetExecutionContext, *, stores_rows: bool = False
    ) -> Iterator[OpenTable]:
        """Open a client, and fetch the properties of the partition's linked table.

        If `stores_rows` is true, a table is rejected if its rows cannot be stored elsewhere. If the
        `with` block raises a permanent error, the run fails without retries.
        """
        name, restrictions, exported_at = read_reported_table(context, self.linked_datasets.key)
        name = name._replace(table_id=self.view or name.table_id)
        if stores_rows:
            _reject_restricted(name, restrictions)
        # For this resource, `context.resources` contains a client that is never closed.
        key, resources = self.bigquery_resource_key, context.resources
        originals = dagster_private(resources, "original_resource_dict")
        bigquery = originals.get(key) or getattr(resources, key)
        with permanent_errors_fail(), open_client(bigquery) as client:
            with translate_google_errors(BIGQUERY, f"Table {name}"):
                info = client.get_table(str(name), timeout=REQUEST_TIMEOUT)
            yield OpenTable(client, name, info, exported_at)

    def find_modified_column(self, table: OpenTable, default: str | None) -> str | None:
        return find_modified_column(table.info.schema, table.name, self.modified_column, default)

    def query(
        self, context: dg.AssetExecutionContext, table: OpenTable, sql: str, subject: str
    ) -> QueryJob:
        return run_query(
            context,
            table.client,
            sql,
            subject=subject,
            location=table.info.location,
            exported_at=table.exported_at,
            max_bytes_billed=self.max_bytes_billed,
        )

    def results(
        self,
        subject: object,
        rows: int,
        schema: Sequence[SchemaField],
        last_modified: datetime | None,
    ) -> list[dg.AssetCheckResult]:
        return check_results(
            subject,
            rows,
            schema,
            columns=self.columns,
            last_modified=last_modified,
            max_age=self.max_age,
        )


def _reject_restricted(table: TableName, restrictions: Mapping[str, bool]) -> None:
    """Raise an error if the table's listing does not allow query results to be stored."""
    if restrictions.get("restrict_query_result"):
        raise dg.Failure(
            f"Query results from table {table} cannot be stored, because the table's "
            "listing sets restrict_query_result in restricted_export_config. No query was run. Ask "
            "the publisher to allow exports, then materialize the linked dataset again. You can "
            "still query the table in BigQuery.",
            allow_retries=False,
        )
