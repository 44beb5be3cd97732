"""A chart of brands as Markdown: a picture that the Dagster UI shows in its light and dark theme.

The UI removes inline SVG from Markdown and keeps images with a `data:` address.
"""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BRANDS = 8
_MAX_NAME_LENGTH = 22
_ROW_HEIGHT = 22
_WIDTH = 660
_NAMES_END, _BARS_BEGIN, _BARS_WIDTH, _PRICES_BEGIN, _PRICES_WIDTH = 160, 168, 150, 390, 140
_STYLE = (
    "text{font:12px sans-serif;fill:#7d8597}"  # readable on white and on black
    ".bar{fill:#6b63e6}.range{stroke:#2a9d8f;stroke-width:4;stroke-linecap:round}"
    ".median{fill:#e9a23b}"
)


def brand_chart(brands: pl.LazyFrame) -> str:
    """Return a Markdown image of the largest brands: their numbers of products and their prices.

    A price is a line from the first to the third quartile, with a dot at the median. Lines of one
    currency have one scale.

    Args:
        brands: Columns as in `BRANDS_SCHEMA`, the brands with the most products first.

    Returns:
        The image; empty if no product has a brand.
    """
    named = brands.drop_nulls("brand").head(MAX_BRANDS).collect()
    if named.is_empty():
        return ""
    lines = "".join(_row(number, row) for number, row in enumerate(_scaled(named)))
    height = _ROW_HEIGHT * (len(named) + 1)
    head = _text(_BARS_BEGIN, 14, "products") + _text(
        _PRICES_BEGIN, 14, "price: quartiles and median"
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">'
        f"<style>{_STYLE}</style>{head}{lines}</svg>"
    )
    image = base64.b64encode(svg.encode()).decode()
    return f"![The largest brands: products and prices](data:image/svg+xml;base64,{image})"


def _scaled(brands: pl.DataFrame) -> Iterator[Mapping[str, Any]]:
    """Yield the rows with the largest number and, for each currency, the largest price."""
    largest = pl.col("products").max().alias("most_products")
    dearest = pl.col("price_p75").max().over("currency").alias("highest_price")
    return brands.with_columns(largest, dearest).iter_rows(named=True)


def _row(number: int, row: Mapping[str, Any]) -> str:
    top = _ROW_HEIGHT * (number + 1)
    base, middle = top + 15, top + 11
    name = row["brand"]
    if len(name) > _MAX_NAME_LENGTH:
        name = f"{name[: _MAX_NAME_LENGTH - 1]}…"
    width = _BARS_WIDTH * row["products"] / row["most_products"]
    parts = [
        _text(_NAMES_END, base, name, anchor="end"),
        f'<rect class="bar" x="{_BARS_BEGIN}" y="{top + 4}" width="{width:.1f}" height="14"/>',
        _text(_BARS_BEGIN + width + 6, base, f"{row['products']:,}"),
    ]
    if row["price_p50"] is not None and row["highest_price"]:
        low, median, high = (
            _PRICES_BEGIN + _PRICES_WIDTH * max(row[quantile], 0) / row["highest_price"]
            for quantile in ("price_p25", "price_p50", "price_p75")
        )
        price = f"{row['price_p50']:,.2f} {row['currency'] or ''}"
        parts += [
            f'<path class="range" d="M{low:.1f} {middle}H{high:.1f}"/>',
            f'<circle class="median" cx="{median:.1f}" cy="{middle}" r="4"/>',
            _text(_PRICES_BEGIN + _PRICES_WIDTH + 10, base, price),
        ]
    return "".join(parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    characters = "".join(letter for letter in text if letter.isprintable())
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(characters)}</text>'
