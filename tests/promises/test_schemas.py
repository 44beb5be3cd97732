"""The columns of snapshots: names, types, order and descriptions are those of the golden file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from octogen_dagster import (
    DETAIL_SCHEMA,
    PRODUCT_SCHEMA,
    build_product_details_asset,
    build_products_asset,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "schemas.json").read_text())
PRODUCTS = build_products_asset("products")
DETAILS = build_product_details_asset(PRODUCTS, name="details")


def described(schema: pl.Schema, asset: Any) -> list[list[str]]:
    """The name, the type and the description of each column, in order."""
    shown = asset.metadata_by_key[asset.key]["dagster/column_schema"]
    descriptions = {column.name: column.description for column in shown.columns}
    assert [*descriptions] == [*schema]
    return [[name, str(dtype), descriptions[name]] for name, dtype in schema.items()]


@pytest.mark.parametrize(
    ("name", "schema", "asset"),
    [("products", PRODUCT_SCHEMA, PRODUCTS), ("details", DETAIL_SCHEMA, DETAILS)],
)
def test_a_schema_is_the_golden_one(name: str, schema: pl.Schema, asset: Any) -> None:
    assert described(schema, asset) == GOLDEN[name]
    assert all(text.endswith(".") for _, _, text in GOLDEN[name])
