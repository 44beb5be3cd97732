"""The Arrow types of BigQuery's columns, and what Polars makes of them."""

from __future__ import annotations

import polars as pl
import pytest
from google.cloud.bigquery import SchemaField

from octogen_dagster.bigquery.arrow_types import arrow_schema, unsupported_columns


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("BOOLEAN", pl.Boolean()),
        ("BYTES", pl.Binary()),
        ("DATE", pl.Date()),
        ("DATETIME", pl.Datetime("us")),
        ("FLOAT64", pl.Float64()),
        ("GEOGRAPHY", pl.String()),
        ("INTEGER", pl.Int64()),
        ("JSON", pl.String()),
        ("NUMERIC", pl.Decimal(38, 9)),
        ("STRING", pl.String()),
        ("TIME", pl.Time()),
        ("TIMESTAMP", pl.Datetime("us", "UTC")),
    ],
)
def test_a_scalar_has_a_type_in_polars(kind: str, dtype: pl.DataType) -> None:
    schema = arrow_schema([SchemaField("x", kind)])
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    assert frame.schema == {"x": dtype}
    assert not unsupported_columns([SchemaField("x", kind)])


def test_structs_and_arrays_are_nested() -> None:
    sku = SchemaField("sku", "STRING")
    brand = SchemaField("brand", "STRUCT", fields=[sku, SchemaField("days", "DATE", "REPEATED")])
    fields = [brand, SchemaField("variants", "RECORD", "REPEATED", fields=[sku])]
    frame = pl.from_arrow(arrow_schema(fields).empty_table())
    assert isinstance(frame, pl.DataFrame)
    assert frame.schema == {
        "brand": pl.Struct({"sku": pl.String(), "days": pl.List(pl.Date())}),
        "variants": pl.List(pl.Struct({"sku": pl.String()})),
    }
    assert not unsupported_columns(fields)


def test_columns_that_polars_cannot_hold_are_named_by_their_path() -> None:
    weight = SchemaField("weight", "BIGNUMERIC")
    fields = [
        SchemaField("title", "STRING"),
        SchemaField("size", "RECORD", "REPEATED", fields=[weight]),
        SchemaField("age", "INTERVAL"),
        SchemaField("sold", "RANGE", range_element_type="DATE"),
        SchemaField("x", "TYPE_OF_TOMORROW"),
    ]
    assert unsupported_columns(fields) == {
        "size.weight": "BIGNUMERIC",
        "age": "INTERVAL",
        "sold": "RANGE",
        "x": "TYPE_OF_TOMORROW",
    }
