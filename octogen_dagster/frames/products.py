"""The kind of a table of products."""

from octogen_dagster.frames.columns import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA
from octogen_dagster.frames.kinds import TableKind

PRODUCTS_KIND = TableKind(PRODUCT_SCHEMA, COLUMN_DESCRIPTIONS)
