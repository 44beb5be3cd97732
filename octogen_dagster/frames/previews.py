"""The rows and columns of a snapshot that tell most of it, for a person to look at."""

from __future__ import annotations

import polars as pl

from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_SCHEMA, WATCHED
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.frames.history import HISTORY_SCHEMA

_MAX_ROWS = 5
_MAX_BRANDS = 10
_MAX_COLUMNS = 8
_MAX_CHANGES = {"changed": 5, "appeared": 2, "disappeared": 2}
_MAX_SHOPS = 5
_ARROW = " → "

_WATCHED = [column for columns in WATCHED.values() for column in columns]
_MINOR_COLUMNS = ("original_price", "is_active")
"""Columns of changes that are shown only if one of the values changed."""

_PRODUCT_COLUMNS = ("title", "brand", "current_price", "currency", "in_stock", "product_url")
_DETAIL_COLUMNS = (
    "title",
    "status",
    "error",
    "brand",
    "current_price",
    "currency",
    "description",
    "looked_up_at",
)
_HISTORY_COLUMNS = (
    "title",
    "current_price",
    "currency",
    "in_stock",
    "valid_from",
    "valid_to",
    "change",
    "product_url",
)
_CHOSEN = (
    (PRODUCT_SCHEMA, _PRODUCT_COLUMNS),
    (DETAIL_SCHEMA, _DETAIL_COLUMNS),
    (HISTORY_SCHEMA, _HISTORY_COLUMNS),
)


def preview(snapshot: pl.LazyFrame) -> pl.DataFrame:
    """Return the first rows of a snapshot.

    A table of this project's own schemas has the columns that tell most, any other its first ones.
    Columns that are null throughout are left out.
    """
    schema = snapshot.collect_schema()
    if schema == CHANGES_SCHEMA:
        shown = _changes(snapshot)
    else:
        rows = snapshot.head(_MAX_BRANDS if schema == BRANDS_SCHEMA else _MAX_ROWS)
        chosen = next((columns for known, columns in _CHOSEN if schema == known), schema.names())
        shown = rows.select(chosen).collect()
    filled = [column.name for column in shown if column.null_count() < len(shown)]
    return shown.select((filled or shown.columns)[:_MAX_COLUMNS])


def shops(products: pl.LazyFrame) -> list[str]:
    """Return the addresses of the shops with the most products, such as `https://acme.com`."""
    shop = pl.col("product_url").str.extract(r"^(https?://[^/?#\s]+)").alias("shop")
    counts = products.group_by(shop).len().drop_nulls("shop")
    largest = counts.sort("len", "shop", descending=[True, False]).head(_MAX_SHOPS)
    return largest.collect(engine="streaming").get_column("shop").to_list()


def _changes(changes: pl.LazyFrame) -> pl.DataFrame:
    """Return changes of each kind, with what changed as "old → new"."""
    kinds = [
        changes.filter(pl.col("change") == kind).head(rows) for kind, rows in _MAX_CHANGES.items()
    ]
    frame = pl.concat(kinds).select("change", *map(_old_and_new, _WATCHED)).collect()
    has_moved = frame.select(pl.col(_WATCHED).str.contains(_ARROW, literal=True).any())
    unmoved = [name for name in _MINOR_COLUMNS if not has_moved.item(0, name)]
    return frame.drop(unmoved)


def _old_and_new(column: str) -> pl.Expr:
    old, new = (pl.col(f"{when}_{column}").cast(pl.String) for when in ("old", "new"))
    has_moved = (pl.col("change") == "changed") & old.ne_missing(new)
    both = pl.concat_str(old.fill_null("none"), pl.lit(_ARROW), new.fill_null("none"))
    return pl.when(has_moved).then(both).otherwise(pl.coalesce(new, old)).alias(column)
