"""The columns of the catalogs asset."""

import polars as pl

CATALOGS_SCHEMA = pl.Schema(
    {
        "catalog": pl.String(),
        "display_name": pl.String(),
        "host": pl.String(),
        "source_base_url": pl.String(),
        "product_count": pl.Int64(),
        "last_indexed_at": pl.Datetime("us", "UTC"),
        "computed_at": pl.Datetime("us", "UTC"),
    }
)

CATALOGS_DESCRIPTIONS = {
    "catalog": "Catalog key, as searches and partitions take it",
    "display_name": "Name of the catalog for people",
    "host": "Host of the shop that the catalog serves; null if the source names none",
    "source_base_url": "Base URL of the shop; null if the source names none",
    "product_count": "Products in the catalog; null if the source does not count them",
    "last_indexed_at": "When the catalog was last indexed, UTC; null if unknown or never",
    "computed_at": "When the service computed product_count, UTC; null if unknown",
}
