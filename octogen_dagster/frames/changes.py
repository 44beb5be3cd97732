"""The changes between two product snapshots, as a pure function of two frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl
from pydantic import ValidationError

from octogen_dagster.api.search import CHECKED, ProductSearch
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.effective_query import EFFECTIVE_QUERY, differences
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.source import CATALOGS

WATCHED = {
    "title": ("title",),
    "price": ("current_price", "original_price", "currency"),
    "availability": ("in_stock", "is_active"),
}
"""The kinds of change, each with the columns that are compared."""

_CURRENT_COLUMNS = ["currency", "in_stock"]
"""Columns that only one generation of the service sends; from the other they are all null."""

_WATCHED_COLUMNS = [column for columns in WATCHED.values() for column in columns]
_IDENTITY = ["catalog_key", "uuid"]
_COLUMNS = [
    *_IDENTITY,
    "product_url",
    *(column for column in _WATCHED_COLUMNS if column != "is_active"),
    # Snapshots of earlier versions have null where the service did not send it, which means true.
    pl.col("is_active").fill_null(value=True),
]
_KEY = pl.struct(_IDENTITY).hash()

CHANGES_SCHEMA = pl.Schema(
    {
        "catalog_key": pl.String(),
        "uuid": pl.String(),
        "product_url": pl.String(),
        "change": pl.Enum(["appeared", "disappeared", "changed"]),
        "changed": pl.List(pl.String),
        **{
            f"{when}_{column}": PRODUCT_SCHEMA[column]
            for column in _WATCHED_COLUMNS
            for when in ("old", "new")
        },
    }
)
CHANGES_DESCRIPTIONS = {
    "catalog_key": "The catalog the product belongs to.",
    "uuid": "The product's identity in Octogen.",
    "product_url": "The product's page at the merchant.",
    "change": "appeared, disappeared or changed.",
    "changed": f"The kinds of change of a changed product: {', '.join(WATCHED)}.",
    **{
        f"{when}_{column}": f"`{column}` in the {which} snapshot."
        for column in _WATCHED_COLUMNS
        for when, which in (("old", "previous"), ("new", "current"))
    },
}
CHANGES_KIND = TableKind(CHANGES_SCHEMA, CHANGES_DESCRIPTIONS)


@dataclass(frozen=True)
class SnapshotPair:
    """A snapshot and the previous one, as lazy frames.

    Attributes:
        current: The current snapshot.
        previous: The previous snapshot; None if there is none.
        previous_partition: The partition of the previous snapshot; None if it is the same.
        file_metadata: The metadata of the current snapshot's file, such as `octogen.search`.
        previous_file_metadata: The metadata of the previous snapshot's file.
    """

    current: pl.LazyFrame
    previous: pl.LazyFrame | None
    previous_partition: str | None = None
    file_metadata: Mapping[str, str] = field(default_factory=dict)
    previous_file_metadata: Mapping[str, str] = field(default_factory=dict)


def vanished_catalogs(pair: SnapshotPair) -> list[str]:
    """Return the catalogs that are in the previous snapshot and not at all in the current one.

    Such a catalog was withdrawn or renamed, which says nothing about its products. Of a search with
    filters a catalog may have no more products that match: it vanished only if it was not read.
    """
    if pair.previous is None:
        return []
    keys = pair.previous.select(pl.col("catalog_key").drop_nulls().unique())
    vanished = keys.join(_present(pair), on="catalog_key", how="anti").collect()
    names: list[str] = vanished.get_column("catalog_key").sort().to_list()
    return names


def _present(pair: SnapshotPair) -> pl.LazyFrame:
    """The keys of the previous snapshot's catalogs that did not vanish; null if there are nulls."""
    current = pair.current.select("catalog_key").unique()
    assert pair.previous is not None
    previous = pair.previous.select("catalog_key").unique()
    read = catalogs_without_products(pair.file_metadata)
    if read is None:
        return previous
    key = pl.col("catalog_key").fill_null("").str.to_lowercase()
    return previous.filter(key.is_in(sorted(read))) if read else current


def _present_keys(pair: SnapshotPair) -> pl.Series:
    """The same keys as one list, for `is_in`."""
    keys: pl.Series = _present(pair).collect(engine="streaming").to_series().implode()
    return keys


def catalogs_without_products(file_metadata: Mapping[str, str]) -> frozenset[str] | None:
    """The catalogs that a snapshot speaks of although it may have no product of them; None for all.

    Of a search with filters a catalog may have no products that match. A whole catalog without
    products was withdrawn or renamed. The keys are in lower case, since the service and the search
    may write them differently; "" stands for products without a catalog.
    """
    search_json = file_metadata.get("octogen.search", "{}")
    try:
        search = ProductSearch.model_validate_json(search_json, context=CHECKED)
    except ValidationError:  # of another version
        return frozenset()
    if search.reads_whole_catalogs:
        return frozenset()
    catalogs = file_metadata.get(CATALOGS)
    return None if catalogs is None else frozenset({"", *map(str.lower, json.loads(catalogs))})


def effective_query_differences(pair: SnapshotPair) -> list[str] | None:
    """Describe how the effective queries differ, line by line; None if one of them is unknown."""
    before, after = (
        file_metadata.get(EFFECTIVE_QUERY)
        for file_metadata in (pair.previous_file_metadata, pair.file_metadata)
    )
    return differences(json.loads(before), json.loads(after)) if before and after else None


def product_changes(pair: SnapshotPair) -> pl.LazyFrame:
    """Compare two snapshots: products that appeared, disappeared or changed.

    A product changed if its title, price or availability did. Without a previous snapshot every
    product appeared. The products of `vanished_catalogs` are left out. The snapshots are read when
    the frame is executed: first a hash of each product, then only those that differ. A change is
    missed if the values before and after have the same 64-bit hash. A product whose `is_active` is
    null counts as active. The rows are sorted by catalog and uuid.
    """
    return pl.defer(lambda: _changes(pair), schema=CHANGES_SCHEMA)


def count_changes(pair: SnapshotPair) -> dict[str, int]:
    """Count the products that appeared, disappeared or changed their price, as `product_changes`.

    Only hashes are compared. Without a previous snapshot nothing is counted.
    """
    if pair.previous is None:
        return {}
    currency = pl.col("currency")
    hashed = (
        _KEY.alias("key"),
        pl.struct("current_price", "original_price").hash().alias("price"),
        currency.hash().alias("currency"),
        currency.is_not_null().alias("has_currency"),
    )
    is_present = pl.col("catalog_key").is_in(_present_keys(pair), nulls_equal=True)
    new, old = pl.collect_all(
        [pair.current.select(hashed), pair.previous.filter(is_present).select(hashed)],
        engine="streaming",
    )
    compares_currency = new["has_currency"].any() and old["has_currency"].any()
    moved = pl.col("price").ne(pl.col("price_old"))
    if compares_currency:
        moved |= pl.col("currency").ne(pl.col("currency_old"))
    both = new.lazy().join(old.lazy(), on="key", how="full", coalesce=True, suffix="_old")
    counts = both.select(
        appeared=pl.col("price_old").is_null().sum(),
        disappeared=pl.col("price").is_null().sum(),
        price_changed=moved.sum(),
    )
    return counts.collect(engine="streaming").row(0, named=True)


def _changes(pair: SnapshotPair) -> pl.DataFrame:
    current = pair.current.select(_COLUMNS)
    if pair.previous is None:
        return _compared(current, current.clear(), _WATCHED_COLUMNS)
    is_present = pl.col("catalog_key").is_in(_present_keys(pair), nulls_equal=True)
    previous = pair.previous.select(_COLUMNS).filter(is_present)
    columns = _comparable_columns(current, previous)
    differing = _KEY.is_in(_differing_keys(current, previous, columns).implode())
    return _compared(*_collected(current.filter(differing), previous.filter(differing)), columns)


def _collected(new: pl.LazyFrame, old: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Execute two frames at the same time, and return them as frames in memory."""
    new_frame, old_frame = pl.collect_all([new, old], engine="streaming")
    return new_frame.lazy(), old_frame.lazy()


def _comparable_columns(current: pl.LazyFrame, previous: pl.LazyFrame) -> list[str]:
    """The watched columns without those that only one of the snapshots fills.

    A service that begins or stops to send a column changes no product.
    """
    is_filled = pl.col(_CURRENT_COLUMNS).is_not_null().any()
    filled = [frame.select(is_filled).collect(engine="streaming") for frame in (current, previous)]
    return [
        column
        for column in _WATCHED_COLUMNS
        if column not in _CURRENT_COLUMNS or all(each.item(0, column) for each in filled)
    ]


def _differing_keys(current: pl.LazyFrame, previous: pl.LazyFrame, columns: list[str]) -> pl.Series:
    """The keys of the products that differ or are in one snapshot only."""
    hashed = [_KEY.alias("key"), pl.struct(columns).hash().alias("values")]
    new, old = _collected(current.select(hashed), previous.select(hashed))
    both = new.join(old, on="key", how="full", coalesce=True, suffix="_old")
    differs = pl.col("values").ne_missing(pl.col("values_old"))
    return both.filter(differs).select("key").collect(engine="streaming").to_series()


def _compared(current: pl.LazyFrame, previous: pl.LazyFrame, columns: list[str]) -> pl.DataFrame:
    """Compare all products of two frames by their columns."""
    both = current.with_columns(pl.lit(True).alias("is_new")).join(
        previous.with_columns(pl.lit(True).alias("is_old")),
        on=_IDENTITY,
        how="full",
        coalesce=True,
        nulls_equal=True,
        suffix="_old",
    )
    changed = pl.concat_list(
        pl.when(pl.any_horizontal(map(_differs, compared))).then(pl.lit(kind))
        for kind, watched in WATCHED.items()
        if (compared := [column for column in watched if column in columns])
    ).list.drop_nulls()
    change = (
        pl.when(pl.col("is_old").is_null())
        .then(pl.lit("appeared"))
        .when(pl.col("is_new").is_null())
        .then(pl.lit("disappeared"))
        .otherwise(pl.lit("changed"))
    )
    return (
        both.with_columns(change.alias("change"), changed.alias("changed"))
        .filter((pl.col("change") != "changed") | (pl.col("changed").list.len() > 0))
        .select(
            *_IDENTITY,
            pl.coalesce("product_url", "product_url_old"),
            pl.col("change").cast(CHANGES_SCHEMA["change"]),
            pl.when(pl.col("change") == "changed").then("changed").alias("changed"),
            *(
                pl.col(f"{column}_old" if when == "old" else column).alias(f"{when}_{column}")
                for column in _WATCHED_COLUMNS
                for when in ("old", "new")
            ),
        )
        .sort(_IDENTITY)
        .collect()
    )


def _differs(column: str) -> pl.Expr:
    return pl.col(column).ne_missing(pl.col(f"{column}_old"))
