"""The SQL that reads a linked view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.cloud.bigquery import SchemaField

from octogen_dagster.bigquery.tables import TableName
from octogen_dagster.bigquery.view_query import build_view_query, check_arguments
from octogen_dagster.errors import OctogenBigQueryInputError

VIEW = TableName.parse("p.d.products_current_v1")
WEIGHT = SchemaField("weight", "BIGNUMERIC")
SCHEMA = [
    SchemaField("uuid", "STRING"),
    SchemaField("Title", "STRING"),
    SchemaField("size", "RECORD", fields=[WEIGHT]),
]


@pytest.mark.parametrize(
    ("columns", "where", "sql"),
    [
        (None, None, "SELECT *\nFROM `p.d.products_current_v1`"),
        (["TITLE", "uuid"], None, "SELECT `Title`, `uuid`\nFROM `p.d.products_current_v1`"),
        (
            ["uuid"],
            "a OR b -- both",
            "SELECT `uuid`\nFROM `p.d.products_current_v1`\nWHERE (\na OR b -- both\n)",
        ),
    ],
)
def test_the_select_has_the_columns_and_rows(
    columns: Sequence[str] | None, where: str | None, sql: str
) -> None:
    assert build_view_query(VIEW, SCHEMA[:2], columns, where) == sql


def test_a_column_that_the_view_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(OctogenBigQueryInputError) as caught:
        build_view_query(VIEW, SCHEMA, ["uuid", "`uuid` FROM x; --"], None)
    assert str(caught.value) == (
        "Table p.d.products_current_v1: it has no column '`uuid` FROM x; --'. Its columns: uuid, "
        "Title, size. Correct columns."
    )


@pytest.mark.parametrize("columns", [None, ["Title", "uuid", "size"]])
def test_a_column_that_polars_cannot_hold_is_refused_with_the_others(
    columns: Sequence[str] | None,
) -> None:
    held = ["uuid", "Title"] if columns is None else ["Title", "uuid"]
    with pytest.raises(OctogenBigQueryInputError) as caught:
        build_view_query(VIEW, SCHEMA, columns, None)
    assert str(caught.value) == (
        "Table p.d.products_current_v1: column 'size.weight' is BIGNUMERIC, which Polars cannot "
        f"hold. Nothing was read. Name the columns without it: columns={held}."
    )


@pytest.mark.parametrize("columns", ["uuid", [], ["uuid", "UUID"]])
def test_columns_are_a_list_of_different_names(columns: Any) -> None:
    with pytest.raises(ValueError, match=r"^columns must be a list of one or more different names"):
        check_arguments(columns, None)


def test_a_blank_condition_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^where must be an expression in SQL, or None for all"):
        check_arguments(None, " ")
