"""The catalogs table: columns, descriptions and preview."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.frames.cells import Cells, Figures, Row, first_rows, short_text
from octogen_dagster.frames.columns import DETAIL_DESCRIPTIONS
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.printable import count

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
    "catalog": "Catalog key, for searches and partitions.",
    "display_name": "Display name.",
    "host": "Host of the catalog's shop; null if unknown.",
    "source_base_url": DETAIL_DESCRIPTIONS["source_base_url"],
    "product_count": "Number of products; null if the source does not count them.",
    "last_indexed_at": "When the catalog was last indexed, in UTC; null if never or unknown.",
    "computed_at": "When the service computed product_count, in UTC; null if unknown.",
}


def catalogs_frame(catalogs: Iterable[CatalogState]) -> pl.DataFrame:
    """Return the catalogs as a frame with the columns in `CATALOGS_SCHEMA`, sorted by key."""
    rows = [tuple(getattr(state, name) for name in CATALOGS_SCHEMA) for state in catalogs]
    return pl.DataFrame(rows, schema=CATALOGS_SCHEMA, orient="row").sort("catalog")


def _cells(row: Row) -> Cells:
    return {
        "catalog": short_text(row["catalog"]),
        "products": row["product_count"],
        "as of": row["last_indexed_at"] or row["computed_at"],
    }


def _sentence(metrics: Figures, snapshot: pl.LazyFrame) -> str:
    text = f"**{count(metrics['rows'], 'catalog')}**"
    products = snapshot.select("product_count").collect().to_series()
    return text if products.has_nulls() else f"{text} with {count(int(products.sum()), 'product')}"


CATALOGS_KIND = TableKind(
    CATALOGS_SCHEMA,
    CATALOGS_DESCRIPTIONS,
    key=("catalog",),
    key_has_nulls=False,
    sentence=_sentence,
    preview=first_rows(_cells, ["catalog", "product_count", "last_indexed_at", "computed_at"]),
)
