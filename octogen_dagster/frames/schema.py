"""The schema of product snapshots: names, types, descriptions and version of the columns.

The fields of both generations of the service's contract are columns. A field that the service does
not send is null. The decoding is in `wire` and `decode`.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl
from pydantic.alias_generators import to_camel

SCHEMA_VERSION = 1

_TIMESTAMP = pl.Datetime("us", "UTC")
_BRAND = pl.Struct(
    {"name": pl.String, "slug": pl.String, "url": pl.String, "description": pl.String}
)
IMAGE = pl.Struct(
    {
        "url": pl.String,
        "cdn_url": pl.String,
        "width": pl.Int64,
        "height": pl.Int64,
        "mime_type": pl.String,
        "size_bytes": pl.Int64,
    }
)
_RATING = pl.Struct({"average": pl.Float64, "count": pl.Int64})


class Column(NamedTuple):
    """A column of a product snapshot.

    Attributes:
        name: The column's name, snake_case; the service's field is the same in camelCase.
        dtype: The Polars type.
        description: The description that users see in the UI.
        required: True if the service always sends it.
        from_service: False if the value does not come from the service.
    """

    name: str
    dtype: pl.DataType
    description: str
    required: bool = False
    from_service: bool = True

    @property
    def field(self) -> str:
        """The name of the service's field."""
        return to_camel(self.name)


COLUMNS = (
    Column("uuid", pl.String(), "The product's identity in Octogen.", required=True),
    Column(
        "catalog_key",
        pl.String(),
        "The catalog the product belongs to; null if a seed-generation service was searched "
        "without naming a catalog.",
    ),
    Column("catalog_display_name", pl.String(), "The catalog's name, for people."),
    Column("product_url", pl.String(), "The product's page at the merchant.", required=True),
    Column("title", pl.String(), "Title as the merchant shows it."),
    Column("brand", _BRAND, "Brand as the merchant shows it; facets filter by a canonical one."),
    Column("current_price", pl.Float64(), "Price now, in `currency`."),
    Column("original_price", pl.Float64(), "Price before a reduction, in `currency`."),
    Column("currency", pl.String(), "ISO 4217 code of both prices."),
    Column("in_stock", pl.Boolean(), "True if the merchant has it in stock."),
    Column(
        "is_active",
        pl.Boolean(),
        "True if the product is active in the index, which it is where the service does not say "
        "it; null if the service says that it does not know.",
    ),
    Column("gender", pl.String(), "male, female or unisex."),
    Column(
        "category_path",
        pl.List(pl.String),
        "Categories from the widest to the narrowest. It begins with the root, such as Apparel & "
        "Accessories, which the `category_path` of the enrichment leaves out.",
    ),
    Column("colors", pl.List(pl.String), "Colours on offer."),
    Column("sizes", pl.List(pl.String), "Sizes on offer."),
    Column("image_url", pl.String(), "The main image's address."),
    Column("primary_image", IMAGE, "The main image with its dimensions."),
    Column("images", pl.List(IMAGE), "All images; only `url` is certain."),
    Column("rating", _RATING, "Average and number of ratings at the merchant."),
    Column("updated_at", _TIMESTAMP, "When the product changed last (UTC)."),
    Column("display_match_score", pl.Float64(), "How well it matches the search, for display."),
    Column("raw_score", pl.Float64(), "The score it was ranked by."),
    Column(
        "fetched_at",
        _TIMESTAMP,
        "When the read that this row is from began (UTC).",
        from_service=False,
    ),
)

PRODUCT_SCHEMA = pl.Schema({column.name: column.dtype for column in COLUMNS})
COLUMN_DESCRIPTIONS = {column.name: column.description for column in COLUMNS}
