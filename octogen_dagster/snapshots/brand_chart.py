"""A chart of brands as a Markdown table, drawn with characters.

The Dagster UI shows it in the colours of its theme, and in place: it is shorter than a picture, and
what has 1,000 characters or more is hidden behind a link.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.dagster_parts import markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BRANDS = 8
_MAX_NAME_LENGTH = 30
_CELLS = 12
_EIGHTHS = "▏▎▍▌▋▊▉█"


def brand_chart(brands: pl.LazyFrame) -> str:
    """Return a table of the largest brands with bars of their products and ranges of their prices.

    A range reaches from the first to the third quartile, with a dot at the median. Ranges of one
    currency have one scale, which ends at the highest of them.

    Args:
        brands: Columns as in `BRANDS_SCHEMA`, the brands with the most products first.

    Returns:
        The table; empty if no product has a brand.
    """
    largest = (
        brands.drop_nulls("brand")
        .head(MAX_BRANDS)
        .with_columns(
            pl.col("products").max().alias("most_products"),
            pl.col("price_p75").max().over("currency").alias("highest_price"),
        )
    )
    rows = [
        {
            "brand": row["brand"][:_MAX_NAME_LENGTH],
            "products": f"{row['products']:,}",
            "": _bar(row["products"] / row["most_products"]),
            "median price": _price(row),
            " ": _range(row),
        }
        for row in largest.collect(engine="streaming").iter_rows(named=True)
    ]
    return markdown_table(pl.DataFrame(rows)) if rows else ""


def _bar(share: float) -> str:
    eighths = max(1, round(share * _CELLS * 8))
    whole, rest = divmod(eighths, 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[rest - 1] if rest else "")


def _price(row: Mapping[str, Any]) -> str:
    if row["price_p50"] is None:
        return ""
    return f"{row['price_p50']:,.2f} {row['currency'] or ''}".rstrip()


def _range(row: Mapping[str, Any]) -> str:
    names = ("highest_price", "price_p25", "price_p50", "price_p75")
    highest, *quartiles = (math.nan if row[name] is None else row[name] for name in names)
    if not all(map(math.isfinite, (highest, *quartiles))) or highest <= 0:
        return ""
    low, median, high = (
        min(_CELLS - 1, math.floor(max(quartile, 0.0) / highest * _CELLS)) for quartile in quartiles
    )
    line = "┄" * low + "━" * (high - low + 1) + "┄" * (_CELLS - 1 - high)
    return f"{line[:median]}●{line[median + 1 :]}"
