"""The changes between two product snapshots, as a pure function of two frames."""

from __future__ import annotations

import json

import polars as pl

from octogen_dagster.frames.cells import (
    Cells,
    Figures,
    Row,
    cells_table,
    price_text,
    product_link,
    stock_text,
)
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.effective_query import EFFECTIVE_QUERY, differences
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.stored import (
    KEY,
    PRODUCT_KEY,
    TRACKED,
    WATCHED,
    SnapshotPair,
    present,
    present_keys,
)

_MAX_CHANGES = {"changed": 5, "appeared": 2, "disappeared": 2}
_CURRENT_COLUMNS = ["currency", "in_stock"]
"""Columns that only one generation of the service sends; from the other they are all null."""

_COLUMNS = [
    *PRODUCT_KEY,
    "product_url",
    *(column for column in TRACKED if column != "is_active"),
    # Snapshots of earlier versions have null where the service did not send it, which means true.
    pl.col("is_active").fill_null(value=True),
]

CHANGES_SCHEMA = pl.Schema(
    {
        "catalog_key": pl.String(),
        "uuid": pl.String(),
        "product_url": pl.String(),
        "change": pl.Enum(["appeared", "disappeared", "changed"]),
        "changed": pl.List(pl.String),
        **{
            f"{when}_{column}": PRODUCT_SCHEMA[column]
            for column in TRACKED
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
        for column in TRACKED
        for when, which in (("old", "previous"), ("new", "current"))
    },
}


def vanished_catalogs(pair: SnapshotPair) -> list[str]:
    """Return the catalogs that are in the previous snapshot and not at all in the current one.

    Such a catalog was withdrawn or renamed, which says nothing about its products. Of a search with
    filters a catalog may have no more products that match: it vanished only if it was not read.
    """
    if pair.previous is None:
        return []
    keys = pair.previous.select(pl.col("catalog_key").drop_nulls().unique())
    vanished = keys.join(present(pair), on="catalog_key", how="anti").collect()
    names: list[str] = vanished.get_column("catalog_key").sort().to_list()
    return names


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


def _changes(pair: SnapshotPair) -> pl.DataFrame:
    current = pair.current.select(_COLUMNS)
    if pair.previous is None:
        return _compared(current, current.clear(), TRACKED)
    is_present = pl.col("catalog_key").is_in(present_keys(pair), nulls_equal=True)
    previous = pair.previous.select(_COLUMNS).filter(is_present)
    columns = _comparable_columns(current, previous)
    differing = KEY.is_in(_differing_keys(current, previous, columns).implode())
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
        for column in TRACKED
        if column not in _CURRENT_COLUMNS or all(each.item(0, column) for each in filled)
    ]


def _differing_keys(current: pl.LazyFrame, previous: pl.LazyFrame, columns: list[str]) -> pl.Series:
    """The keys of the products that differ or are in one snapshot only."""
    hashed = [KEY.alias("key"), pl.struct(columns).hash().alias("values")]
    new, old = _collected(current.select(hashed), previous.select(hashed))
    both = new.join(old, on="key", how="full", coalesce=True, suffix="_old")
    differs = pl.col("values").ne_missing(pl.col("values_old"))
    return both.filter(differs).select("key").collect(engine="streaming").to_series()


def _compared(current: pl.LazyFrame, previous: pl.LazyFrame, columns: list[str]) -> pl.DataFrame:
    """Compare all products of two frames by their columns."""
    both = current.with_columns(pl.lit(True).alias("is_new")).join(
        previous.with_columns(pl.lit(True).alias("is_old")),
        on=PRODUCT_KEY,
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
            *PRODUCT_KEY,
            pl.coalesce("product_url", "product_url_old"),
            pl.col("change").cast(CHANGES_SCHEMA["change"]),
            pl.when(pl.col("change") == "changed").then("changed").alias("changed"),
            *(
                pl.col(f"{column}_old" if when == "old" else column).alias(f"{when}_{column}")
                for column in TRACKED
                for when in ("old", "new")
            ),
        )
        .sort(PRODUCT_KEY)
        .collect()
    )


def _differs(column: str) -> pl.Expr:
    return pl.col(column).ne_missing(pl.col(f"{column}_old"))


def _preview(changes: pl.LazyFrame) -> pl.DataFrame:
    """Some changes of each kind."""
    kinds = [
        changes.filter(pl.col("change") == kind).head(rows) for kind, rows in _MAX_CHANGES.items()
    ]
    return cells_table(map(_cells, pl.concat(kinds).collect().to_dicts()))


def _cells(row: Row) -> Cells:
    """A change, with what changed as "old → new"."""
    prices = [
        price_text(row[f"{when}_current_price"], row[f"{when}_currency"]) for when in ("old", "new")
    ]
    if row["change"] == "changed" and row["old_currency"] == row["new_currency"]:
        prices[0] = prices[0].removesuffix(f" {row['new_currency']}")
    return {
        "change": row["change"],
        "product": product_link(row, _moved(row, row["old_title"] or "", row["new_title"] or "")),
        "price": _moved(row, *(each or "none" for each in prices)),
        "stock": _moved(row, *(stock_text(row[f"{when}_in_stock"]) for when in ("old", "new"))),
    }


def _moved(row: Row, old: str, new: str) -> str:
    if row["change"] != "changed":
        return old if row["change"] == "disappeared" else new
    return new if old == new else f"{old or 'none'} → {new or 'none'}"


def _sentence(_: Figures, snapshot: pl.LazyFrame) -> str:
    change, changed = pl.col("change"), pl.col("changed")
    counted = snapshot.select(
        *((change == name).sum().alias(name) for name in ("appeared", "disappeared", "changed")),
        *(changed.list.contains(kind).sum().alias(f"of {kind}") for kind in WATCHED),
    )
    counts = counted.collect(engine="streaming").row(0, named=True)
    text = (
        f"**{counts['appeared']:,} new, {counts['disappeared']:,} gone, "
        f"{counts['changed']:,} changed**"
    )
    kinds = [f"{kind} {counts[f'of {kind}']:,}" for kind in WATCHED if counts[f"of {kind}"]]
    return f"{text}: {', '.join(kinds)}" if kinds else text


CHANGES_KIND = TableKind(
    CHANGES_SCHEMA,
    CHANGES_DESCRIPTIONS,
    key=(*PRODUCT_KEY, "fetched_at"),
    made_from={
        **{name: [name] for name in (*PRODUCT_KEY, "product_url")},
        "change": [*PRODUCT_KEY, *TRACKED],
        "changed": TRACKED,
        **{f"{when}_{column}": [column] for column in TRACKED for when in ("old", "new")},
    },
    accumulates=True,
    sentence=_sentence,
    preview=_preview,
    first=("appeared", "disappeared", "changed", *(f"{name}_changed" for name in WATCHED)),
    line=None,
)
