"""The Arrow types of BigQuery's columns, as far as Polars holds them. Knows no Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from google.cloud.bigquery import SchemaField

_STRUCT = {"RECORD", "STRUCT"}
_SCALARS = {
    "BOOL": "bool",
    "BOOLEAN": "bool",
    "BYTES": "binary",
    "DATE": "date32",
    "DATETIME": "datetime",
    "FLOAT": "float64",
    "FLOAT64": "float64",
    "GEOGRAPHY": "string",
    "INT64": "int64",
    "INTEGER": "int64",
    "JSON": "string",
    "NUMERIC": "decimal",
    "STRING": "string",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
}


def arrow_schema(fields: Sequence[SchemaField]) -> pa.Schema:
    """The Arrow schema of columns, none of which is among `unsupported_columns`.

    Args:
        fields: The columns.
    """
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _arrow_type(field)) for field in fields])


def unsupported_columns(fields: Sequence[SchemaField]) -> dict[str, str]:
    """The types of the columns that Polars cannot hold, by path such as `size.weight`.

    BIGNUMERIC has more digits than Polars, INTERVAL has no type there, and the two APIs of BigQuery
    send RANGE in different forms.

    Args:
        fields: The columns.
    """
    return dict(_unsupported(fields, ""))


def _unsupported(fields: Sequence[SchemaField], parent: str) -> Iterator[tuple[str, str]]:
    for field in fields:
        path = f"{parent}{field.name}"
        if field.field_type in _STRUCT:
            yield from _unsupported(field.fields, f"{path}.")
        elif field.field_type not in _SCALARS:
            yield path, field.field_type


def _arrow_type(field: SchemaField) -> pa.DataType:
    import pyarrow as pa

    if field.field_type in _STRUCT:
        kind = pa.struct([pa.field(each.name, _arrow_type(each)) for each in field.fields])
    else:
        kind = {
            "datetime": pa.timestamp("us"),
            "decimal": pa.decimal128(38, 9),
            "time": pa.time64("us"),
            "timestamp": pa.timestamp("us", "UTC"),
        }.get(name := _SCALARS[field.field_type]) or pa.type_for_alias(name)
    return pa.list_(kind) if field.mode == "REPEATED" else kind
