"""The table of the catalogs of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.frames.columns import DETAIL_DESCRIPTIONS
from octogen_dagster.frames.kinds import TableKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from octogen_dagster.api.catalog_states import CatalogState

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
CATALOGS_KIND = TableKind(CATALOGS_SCHEMA, CATALOGS_DESCRIPTIONS)


def catalogs_frame(catalogs: Iterable[CatalogState]) -> pl.DataFrame:
    """Return catalogs as a frame with the schema `CATALOGS_SCHEMA`, sorted by key."""
    rows = [tuple(getattr(state, name) for name in CATALOGS_SCHEMA) for state in catalogs]
    return pl.DataFrame(rows, schema=CATALOGS_SCHEMA, orient="row").sort("catalog")
