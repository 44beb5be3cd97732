"""The SQL that reads columns and rows of a linked view. Knows no Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from octogen_dagster.bigquery.arrow_types import unsupported_columns
from octogen_dagster.errors import OctogenBigQueryInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.cloud.bigquery import SchemaField

    from octogen_dagster.bigquery.tables import TableName


def check_arguments(
    columns: Sequence[str] | None, where: str | None, modified_column: str | None = None
) -> None:
    """Check what can be checked without the view.

    Raises:
        ValueError: columns are no list of different names, or modified_column is not among them, or
            where is blank.
    """
    if columns is not None:
        names = [] if isinstance(columns, str) else [name.casefold() for name in columns]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                "columns must be a list of one or more different names of columns, or None for "
                f"all, not {columns!r}."
            )
        if modified_column is not None and modified_column.casefold() not in names:
            raise ValueError(
                f"modified_column {modified_column!r} is not among columns, so it would not be "
                "read: add it to them."
            )
    if where is not None and not where.strip():
        raise ValueError(
            f"where must be an expression in SQL, or None for all rows, not {where!r}."
        )


def build_view_query(
    table: TableName,
    schema: Sequence[SchemaField],
    columns: Sequence[str] | None,
    where: str | None,
) -> str:
    """Build the SELECT.

    Args:
        table: The view.
        schema: Its columns.
        columns: The names of the columns to read, in any case; None for all.
        where: An expression in SQL that selects the rows; None for all.

    Raises:
        OctogenBigQueryInputError: The view lacks a column, or Polars cannot hold one.
    """
    fields = {field.name.casefold(): field for field in schema}
    if missing := [name for name in columns or () if name.casefold() not in fields]:
        raise OctogenBigQueryInputError(
            f"Table {table}: it has no column {missing[0]!r}. Its columns: "
            f"{', '.join(field.name for field in schema)}. Correct columns."
        )
    chosen = schema if columns is None else [fields[name.casefold()] for name in columns]
    if unsupported := unsupported_columns(chosen):
        path, kind = next(iter(unsupported.items()))
        held = [field.name for field in chosen if not unsupported_columns([field])]
        raise OctogenBigQueryInputError(
            f"Table {table}: column {path!r} is {kind}, which Polars cannot hold. Nothing was "
            f"read. Name the columns without it: columns={held}."
        )
    names = "*" if columns is None else ", ".join(f"`{field.name}`" for field in chosen)
    sql = f"SELECT {names}\nFROM {table.quoted}"
    if where is not None:
        sql += f"\nWHERE (\n{where}\n)"  # a comment at its end does not reach the parenthesis
    return sql
