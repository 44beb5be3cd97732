"""The columns of tables in the metadata: types, descriptions and lineage."""

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.frames.brands import BRANDS_DESCRIPTIONS, BRANDS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_DESCRIPTIONS, CHANGES_SCHEMA
from octogen_dagster.frames.columns import (
    COLUMN_DESCRIPTIONS,
    DETAIL_DESCRIPTIONS,
    DETAIL_SCHEMA,
    PRODUCT_SCHEMA,
)
from octogen_dagster.snapshots.columns import (
    BRANDS_SOURCES,
    CATALOGS_DESCRIPTIONS,
    CATALOGS_SCHEMA,
    CHANGES_SOURCES,
    DETAIL_SOURCES,
    column_lineage,
    column_schema,
    type_name,
)


@pytest.mark.parametrize(
    ("schema", "descriptions"),
    [
        (PRODUCT_SCHEMA, COLUMN_DESCRIPTIONS),
        (CHANGES_SCHEMA, CHANGES_DESCRIPTIONS),
        (DETAIL_SCHEMA, DETAIL_DESCRIPTIONS),
        (BRANDS_SCHEMA, BRANDS_DESCRIPTIONS),
        (CATALOGS_SCHEMA, CATALOGS_DESCRIPTIONS),
    ],
    ids=["products", "changes", "details", "brands", "catalogs"],
)
def test_each_column_of_our_own_schemas_has_its_type_and_a_description(
    schema: pl.Schema, descriptions: dict[str, str]
) -> None:
    # A column that a product has as well is described as the product's.
    described = {
        name: COLUMN_DESCRIPTIONS[name] if PRODUCT_SCHEMA.get(name) == dtype else descriptions[name]
        for name, dtype in schema.items()
    }
    columns = column_schema(schema).columns
    assert [(each.name, each.type, each.description) for each in columns] == [
        (name, type_name(dtype), described[name]) for name, dtype in schema.items()
    ]
    assert all(described.values())


def test_a_column_of_another_type_or_name_is_not_described() -> None:
    (price, stock) = column_schema({"current_price": pl.String(), "stock": pl.Int64()}).columns
    assert (price.type, price.description) == ("string", None)
    assert (stock.type, stock.description) == ("int64", None)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (PRODUCT_SCHEMA["brand"], "struct"),
        (PRODUCT_SCHEMA["images"], "list<struct>"),
        (PRODUCT_SCHEMA["updated_at"], "datetime"),
        (CHANGES_SCHEMA["change"], "enum"),
        (pl.List(pl.List(pl.String)), "list<list<string>>"),
        (pl.Array(pl.Int8, 3), "list<int8>"),
    ],
    ids=str,
)
def test_a_type_is_named_without_its_parameters(dtype: pl.DataType, name: str) -> None:
    assert type_name(dtype) == name


@pytest.mark.parametrize(
    ("schema", "sources"),
    [
        (CHANGES_SCHEMA, CHANGES_SOURCES),
        (DETAIL_SCHEMA, DETAIL_SOURCES),
        (BRANDS_SCHEMA, BRANDS_SOURCES),
    ],
    ids=["changes", "details", "brands"],
)
def test_each_column_comes_from_columns_of_the_products(
    schema: pl.Schema, sources: dict[str, list[str]]
) -> None:
    assert sources.keys() == schema.keys()
    assert all(set(columns) and set(columns) <= set(PRODUCT_SCHEMA) for columns in sources.values())


def test_a_lineage_names_the_asset_and_the_columns_of_the_products() -> None:
    products = dg.AssetKey(["shop", "products"])
    (metadata,) = column_lineage(products, {"old_title": ["title"]}).items()
    assert metadata == (
        "dagster/column_lineage",
        dg.MetadataValue.column_lineage(
            dg.TableColumnLineage({"old_title": [dg.TableColumnDep(products, "title")]})
        ),
    )
