"""Stored snapshots of products: what tells products apart, what is compared, what changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import polars as pl
from pydantic import ValidationError

from octogen_dagster.api.search import CHECKED, ProductSearch
from octogen_dagster.frames.source import CATALOGS, SELECTION

WATCHED = {
    "title": ("title",),
    "price": ("current_price", "original_price", "currency"),
    "availability": ("in_stock", "is_active"),
}
"""The kinds of change, each with the columns that are compared."""
TRACKED = [column for columns in WATCHED.values() for column in columns]
PRODUCT_KEY = ["catalog_key", "uuid"]
CATEGORY_SEPARATOR = " \u203a "
"""The text between the levels of a category, in a history and in the page of a report."""
KEY = pl.struct(PRODUCT_KEY).hash()
IN_STOCK = pl.col("in_stock") & pl.col("is_active").fill_null(value=True)
"""True if a product is in stock, null if that is not said; one that is not active is not."""


class StoredSnapshot(NamedTuple):
    """A stored snapshot, which is opened when it is asked for.

    Attributes:
        open: Opens its file, and returns its rows and the metadata of the file.
        name: The key of its partition where a catalog has partitions of time; else empty.
        version: What tells it from another snapshot of that partition; else empty.
    """

    open: Callable[[], tuple[pl.LazyFrame, Mapping[str, str]]]
    name: str = ""
    version: str = ""


def catalogs_without_products(file_metadata: Mapping[str, str]) -> frozenset[str] | None:
    """The catalogs that a snapshot speaks of although it may have no product of them; None for all.

    Of a search with filters a catalog may have no products that match. A whole catalog without
    products was withdrawn or renamed. The keys are in lower case, since the service and the search
    may write them differently; "" stands for products without a catalog.
    """
    if SELECTION in file_metadata:
        return None
    search_json = file_metadata.get("octogen.search", "{}")
    try:
        search = ProductSearch.model_validate_json(search_json, context=CHECKED)
    except ValidationError:  # of another version
        return frozenset()
    if search.reads_whole_catalogs:
        return frozenset()
    catalogs = file_metadata.get(CATALOGS)
    return None if catalogs is None else frozenset({"", *map(str.lower, json.loads(catalogs))})


def count_changes(
    current: pl.LazyFrame, previous: pl.LazyFrame, file_metadata: Mapping[str, str]
) -> dict[str, int]:
    """Count the products that appeared, disappeared or changed their price between two snapshots.

    Only hashes are compared. A catalog that the current snapshot lacks was withdrawn, and its
    products are not counted. `file_metadata` is that of the current snapshot.
    """
    currency = pl.col("currency")
    hashed = (
        KEY.alias("key"),
        pl.struct("current_price", "original_price").hash().alias("price"),
        currency.hash().alias("currency"),
        currency.is_not_null().alias("has_currency"),
    )
    catalog = pl.col("catalog_key").fill_null("").str.to_lowercase()
    if (others := catalogs_without_products(file_metadata)) is not None:
        there = current.select(catalog.unique()).collect(engine="streaming").to_series()
        previous = previous.filter(catalog.is_in([*there, *others]))
    new, old = pl.collect_all(
        [each.select(hashed) for each in (current, previous)], engine="streaming"
    )
    compares_currency = new["has_currency"].any() and old["has_currency"].any()
    moved = pl.col("price").ne(pl.col("price_old"))
    if compares_currency:
        moved |= pl.col("currency").ne(pl.col("currency_old"))
    both = new.lazy().join(old.lazy(), on="key", how="full", coalesce=True, suffix="_old")
    counts = both.select(
        # A hash is never null, also not of a null: this is a product of one snapshot only.
        appeared=pl.col("price_old").is_null().sum(),
        disappeared=pl.col("price").is_null().sum(),
        price_changed=moved.sum(),
    )
    return counts.collect(engine="streaming").row(0, named=True)


def known_price(price: pl.Expr) -> pl.Expr:
    """A price that can be compared; null for zero, which nothing costs."""
    return pl.when(price.is_finite() & (price > 0)).then(price)


def brand_name(columns: Mapping[str, pl.DataType]) -> pl.Expr:
    """The name of a product's brand, which an asset of one's own may have as a text, or not."""
    brand = columns.get("brand")
    if isinstance(brand, pl.Struct) and "name" in brand.to_schema():
        return pl.col("brand").struct.field("name")
    name = "brand" if "brand" in columns else "brand_name"
    is_text = isinstance(columns.get(name), pl.String | pl.Categorical | pl.Enum)
    return pl.col(name).cast(pl.String) if is_text else pl.lit(None, pl.String)


def category(columns: Mapping[str, pl.DataType]) -> pl.Expr:
    """The category of a product, its levels as one text, which is null if there are none."""
    levels = pl.lit(None, pl.String)
    if columns.get("category_path") == pl.List(pl.String):
        levels = pl.col("category_path").list.join(CATEGORY_SEPARATOR, ignore_nulls=True)
    elif columns.get("category") == pl.String:
        levels = pl.col("category")
    return pl.when(levels != "").then(levels)
