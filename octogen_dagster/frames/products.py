"""The table kind for product snapshots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from octogen_dagster.frames.cells import (
    Cells,
    Figures,
    Row,
    brand_text,
    cost_text,
    first_rows,
    median_text,
    price_text,
    product_link,
    stock_text,
)
from octogen_dagster.frames.columns import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA
from octogen_dagster.frames.effective_query import EFFECTIVE_QUERY, differences
from octogen_dagster.frames.kinds import PLAIN, Markdown, Published, Shown, TableKind
from octogen_dagster.frames.stored import PRODUCT_KEY, count_changes
from octogen_dagster.printable import count

_SEARCH = "octogen.search"
_MAX_DIFFERENCES = 10


def _cells(row: Row) -> Cells:
    return {
        "product": product_link(row, row["title"]),
        "brand": brand_text(row["brand"]),
        "price": price_text(row["current_price"], row["currency"]),
        "stock": stock_text(row["in_stock"]),
    }


def _sentence(metrics: Figures, _: pl.LazyFrame) -> str:
    text = f"**{count(metrics['rows'], 'product')}**"
    if metrics.get("truncated"):
        text += ", cut off at max_products"
    if metrics.get("first_snapshot"):
        text += ", the first snapshot"
    elif "appeared" in metrics:
        moved = count(metrics["price_changed"], "price")
        text += f", {metrics['appeared']:,} new, {metrics['disappeared']:,} gone, {moved} moved"
    return "; ".join([text, *median_text(metrics), *cost_text(metrics)])


def _changes(of: Published) -> Shown:
    """Count products that appeared, disappeared or changed price since the previous snapshot.

    Return no counts if the search has changed.
    """
    if _SEARCH not in of.file_metadata or of.before is None:
        return {}
    before = of.before()
    if before is None:
        return {"first_snapshot": True}
    rows, file_metadata = before
    own, other = (
        search_key(json.loads(each.get(_SEARCH, "null")))
        for each in (of.file_metadata, file_metadata)
    )
    if own != other:
        return {}
    counts = count_changes(of.rows, rows, of.file_metadata)
    return {**counts, **_effective_query(of.file_metadata, file_metadata)}


def _effective_query(now: Mapping[str, str], before: Mapping[str, str]) -> Shown:
    """Compare the effective queries of two snapshots if both queries are known."""
    if EFFECTIVE_QUERY not in now or EFFECTIVE_QUERY not in before:
        return {}
    differs = differences(json.loads(before[EFFECTIVE_QUERY]), json.loads(now[EFFECTIVE_QUERY]))
    lines = "\n".join(f"* {line}" for line in differs[:_MAX_DIFFERENCES])
    return {
        "effective_query_changed": bool(differs),
        **({"effective_query_differences": Markdown(lines)} if differs else {}),
    }


def search_key(search: Any) -> Any:
    """Return a search without its page size, which does not affect the results."""
    return {**search, "page_size": None} if isinstance(search, Mapping) else None


PRODUCTS_KIND = TableKind(
    PRODUCT_SCHEMA,
    COLUMN_DESCRIPTIONS,
    key=tuple(PRODUCT_KEY),
    # Hashing the images would double the digest's time. `image_url` has the first image.
    volatile=("fetched_at", "display_match_score", "raw_score", "images"),
    sentence=_sentence,
    preview=first_rows(
        _cells, ["title", "product_url", "brand", "current_price", "currency", "in_stock"]
    ),
    parts={"change counts": _changes},
    first=("appeared", "disappeared", "price_changed", "price_p50_"),
    line="products",
)


def kind_of_rows(kind: TableKind, schema: pl.Schema) -> TableKind:
    """Return `PRODUCTS_KIND` if a custom asset has all product columns; otherwise, `kind`."""
    are_products = kind is PLAIN and PRODUCT_SCHEMA.items() <= schema.items()
    return PRODUCTS_KIND if are_products else kind
