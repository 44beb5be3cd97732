"""The key and tracked columns of product snapshots, and the changes between two snapshots."""

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
"""The kinds of changes to a product, and the columns compared for each."""
TRACKED = [column for columns in WATCHED.values() for column in columns]
PRODUCT_KEY = ["catalog_key", "uuid"]
CATEGORY_SEPARATOR = " \u203a "
"""Separates category levels, in histories and the price report."""
KEY = pl.struct(PRODUCT_KEY).hash()
IN_STOCK = pl.col("in_stock") & pl.col("is_active").fill_null(value=True)
"""True if a product is in stock, false if it is sold out or inactive, and null if unknown."""


class StoredSnapshot(NamedTuple):
    """A stored snapshot that is opened on demand.

    Attributes:
        open: A function that opens the file, and returns its rows and file metadata.
        name: The partition key if the asset has time partitions; otherwise, an empty string.
        version: An ID that changes when the partition's snapshot is replaced, if the asset has time
            partitions; otherwise, an empty string.
    """

    open: Callable[[], tuple[pl.LazyFrame, Mapping[str, str]]]
    name: str = ""
    version: str = ""


def possibly_empty_catalogs(file_metadata: Mapping[str, str]) -> frozenset[str] | None:
    """Return the catalogs that can be empty in a snapshot; None means all catalogs.

    In a filtered search, a catalog can have no matching products. If whole catalogs are read, a
    catalog without products was withdrawn or renamed. Keys are lowercase, because the service and
    the search can spell keys differently. An empty key represents products without a catalog.
    """
    if SELECTION in file_metadata:
        return None
    search_json = file_metadata.get("octogen.search", "{}")
    try:
        search = ProductSearch.model_validate_json(search_json, context=CHECKED)
    except ValidationError:  # written by another version
        return frozenset()
    if search.reads_whole_catalogs:
        return frozenset()
    catalogs = file_metadata.get(CATALOGS)
    return None if catalogs is None else frozenset({"", *map(str.lower, json.loads(catalogs))})


def count_changes(
    current: pl.LazyFrame, previous: pl.LazyFrame, file_metadata: Mapping[str, str]
) -> dict[str, int]:
    """Count products that appeared, disappeared or changed price between two snapshots.

    Only hashes are compared. If a whole catalog is missing from the current snapshot, it was
    withdrawn, and its products are not counted as disappeared. `file_metadata` belongs to the
    current snapshot.
    """
    currency = pl.col("currency")
    hashed = (
        KEY.alias("key"),
        pl.struct("current_price", "original_price").hash().alias("price"),
        currency.hash().alias("currency"),
        currency.is_not_null().alias("has_currency"),
    )
    catalog = pl.col("catalog_key").fill_null("").str.to_lowercase()
    if (others := possibly_empty_catalogs(file_metadata)) is not None:
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
        # Even a null has a hash, so a null hash means that only one snapshot has the product.
        appeared=pl.col("price_old").is_null().sum(),
        disappeared=pl.col("price").is_null().sum(),
        price_changed=moved.sum(),
    )
    return counts.collect(engine="streaming").row(0, named=True)


def known_price(price: pl.Expr) -> pl.Expr:
    """A price that can be compared; null if the price is zero or not finite."""
    return pl.when(price.is_finite() & (price > 0)).then(price)


def brand_name(columns: Mapping[str, pl.DataType]) -> pl.Expr:
    """The brand name from a struct or string column; null if the table has no brand column."""
    brand = columns.get("brand")
    if isinstance(brand, pl.Struct) and "name" in brand.to_schema():
        return pl.col("brand").struct.field("name")
    name = "brand" if "brand" in columns else "brand_name"
    is_text = isinstance(columns.get(name), pl.String | pl.Categorical | pl.Enum)
    return pl.col(name).cast(pl.String) if is_text else pl.lit(None, pl.String)


def category(columns: Mapping[str, pl.DataType]) -> pl.Expr:
    """The category levels joined into one string; null if there are no levels."""
    levels = pl.lit(None, pl.String)
    if columns.get("category_path") == pl.List(pl.String):
        levels = pl.col("category_path").list.join(CATEGORY_SEPARATOR, ignore_nulls=True)
    elif columns.get("category") == pl.String:
        levels = pl.col("category")
    return pl.when(levels != "").then(levels)
