"""The columns of snapshots: names, types, order and descriptions are those of the golden file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from octogen_dagster import (
    BRANDS_SCHEMA,
    CHANGES_SCHEMA,
    DETAIL_SCHEMA,
    PRODUCT_SCHEMA,
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
    build_products_asset,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "schemas.json").read_text())
PRODUCTS = build_products_asset("products")
SNAPSHOTS: dict[str, tuple[pl.Schema, Any]] = {
    "products": (PRODUCT_SCHEMA, PRODUCTS),
    "details": (DETAIL_SCHEMA, build_product_details_asset(PRODUCTS)),
    "changes": (CHANGES_SCHEMA, build_product_changes_asset(PRODUCTS)),
    "brands": (BRANDS_SCHEMA, build_product_brands_asset(PRODUCTS)),
}


def described(schema: pl.Schema, asset: Any) -> list[list[str]]:
    """The name, the type and the description of each column, in order."""
    shown = asset.metadata_by_key[asset.key]["dagster/column_schema"]
    descriptions = {column.name: column.description for column in shown.columns}
    assert [*descriptions] == [*schema]
    return [[name, str(dtype), descriptions[name]] for name, dtype in schema.items()]


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_schema_is_the_golden_one(name: str) -> None:
    assert described(*SNAPSHOTS[name]) == GOLDEN[name]
    assert all(text.endswith(".") for _, _, text in GOLDEN[name])
