"""The columns of the catalogs asset."""

import polars as pl

from octogen_dagster.frames.columns import DETAIL_DESCRIPTIONS

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
    "catalog": "The catalog's key, as searches and partitions take it.",
    "display_name": "The catalog's name for people.",
    "host": "The host of the shop that the catalog serves; null if the source names none.",
    "source_base_url": DETAIL_DESCRIPTIONS["source_base_url"],
    "product_count": "The number of products; null if the source does not count them.",
    "last_indexed_at": "When the catalog was last indexed (UTC); null if never or unknown.",
    "computed_at": "When the service computed product_count (UTC); null if unknown.",
}
