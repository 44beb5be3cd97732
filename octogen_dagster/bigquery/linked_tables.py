"""Assets over the tables of linked datasets: how they are built, and how they open a table."""

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
    """A table of a linked dataset, with what BigQuery and the linked dataset's asset say of it."""

    client: Client
    name: TableName
    there: Table
    exported_at: float | None


@dataclass(frozen=True)
class LinkedTables:
    """A view of each linked dataset: how it is opened, queried and checked."""

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
        """Return a builder's arguments of an asset with a partition and checks for each table.

        The second ones are those that its user gave.
        """
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
        """Open a client for the table of a partition, and read what BigQuery says of it.

        A table whose rows may not be stored is refused if they are to be. In the block, errors that
        last until somebody acts are failures that are not retried.
        """
        name, restrictions, exported_at = read_reported_table(context, self.linked_datasets.key)
        name = name._replace(table_id=self.view or name.table_id)
        if stores_rows:
            _refuse_restricted(name, restrictions)
        # `context.resources` has what the resource makes of itself: a client nobody would close.
        key, resources = self.bigquery_resource_key, context.resources
        originals = dagster_private(resources, "original_resource_dict")
        bigquery = originals.get(key) or getattr(resources, key)
        with permanent_errors_fail(), open_client(bigquery) as client:
            with translate_google_errors(BIGQUERY, f"Table {name}"):
                there = client.get_table(str(name), timeout=REQUEST_TIMEOUT)
            yield OpenTable(client, name, there, exported_at)

    def dated_by(self, table: OpenTable, default: str | None) -> str | None:
        """The column that dates the rows of a table."""
        return find_modified_column(table.there.schema, table.name, self.modified_column, default)

    def query(
        self, context: dg.AssetExecutionContext, table: OpenTable, sql: str, subject: str
    ) -> QueryJob:
        """Run a query of a table and return its job."""
        return run_query(
            context,
            table.client,
            sql,
            subject=subject,
            location=table.there.location,
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
        """The results of the checks of the asset."""
        return check_results(
            subject,
            rows,
            schema,
            columns=self.columns,
            last_modified=last_modified,
            max_age=self.max_age,
        )


def _refuse_restricted(table: TableName, restrictions: Mapping[str, bool]) -> None:
    """Refuse to query a table whose listing forbids to store the result."""
    if restrictions.get("restrict_query_result"):
        raise dg.Failure(
            f"Table {table}: its listing's restricted_export_config has restrict_query_result, so "
            "Google refuses to store the result of a query elsewhere. Nothing was queried. Query "
            "the linked dataset in BigQuery, or ask its publisher to allow exports, and "
            "materialize the linked dataset again.",
            allow_retries=False,
        )
