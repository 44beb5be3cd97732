"""The changes table, which compares two snapshots in a product history."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

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
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.frames.stored import PRODUCT_KEY, TRACKED, WATCHED
from octogen_dagster.history.observed import Observed
from octogen_dagster.history.table import valid_at

_MAX_CHANGES = {"changed": 5, "appeared": 2, "disappeared": 2}
_CURRENT_COLUMNS = ["currency", "in_stock"]
"""The columns that are null if the API implements the older contract."""

_COLUMNS = [
    *PRODUCT_KEY,
    "product_url",
    *(column for column in TRACKED if column != "is_active"),
    # Earlier versions stored null if the service sent no value, which means true.
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
    "catalog_key": "The product's catalog.",
    "uuid": "The product's Octogen ID.",
    "product_url": "The URL of the product page at the merchant.",
    "change": "The kind of change: appeared, disappeared or changed.",
    "changed": f"The product's properties that changed: {', '.join(WATCHED)}.",
    **{
        f"{when}_{column}": f"`{column}` in the {which} snapshot."
        for column in TRACKED
        for when, which in (("old", "previous"), ("new", "current"))
    },
}


def snapshot_before(observed: Observed, at: datetime) -> datetime | None:
    """Return the time of the last snapshot before `at`, or None."""
    return max((time for time in observed if time < at), default=None)


def vanished_catalogs(observed: Observed, at: datetime, since: datetime | None) -> list[str]:
    """Return the lowercase keys of the catalogs that the later snapshot no longer covers.

    Such a catalog was withdrawn or renamed, so its products do not count as disappeared.
    """
    before, now = (observed[since].catalogs if since else None), observed[at].catalogs
    return [] if before is None or now is None else sorted(filter(None, before - now))


def last_change(history: pl.LazyFrame, observed: Observed) -> datetime:
    """Return the time of the latest snapshot that differs from the previous snapshot.

    If nothing has changed since the first snapshot, return the first snapshot's time.
    """
    moments = pl.concat(
        history.select(pl.col(name).alias("at")) for name in ("valid_from", "valid_to")
    )
    changed = {*moments.unique().collect(engine="streaming").to_series()}
    first, *later = sorted(observed)
    for since, at in reversed([*pairwise([first, *later])]):
        if vanished_catalogs(observed, at, since):
            return at
        if at in changed and len(product_changes(history, at, observed)):
            return at
    return first


def product_changes(
    history: pl.LazyFrame, at: datetime, observed: Observed, since: datetime | None = None
) -> pl.DataFrame:
    """Return the products that appeared, disappeared or changed in a snapshot.

    A null in `is_active` counts as true. The rows are sorted by catalog and uuid.

    Args:
        history: The product history.
        at: The snapshot's time.
        observed: The snapshots in the history.
        since: The time of the snapshot to compare with. Defaults to the previous snapshot. If there
            is no previous snapshot, all products count as appeared.
    """
    since = since or snapshot_before(observed, at)
    began, ended, columns = history.filter(valid_at(at)), history.clear(), TRACKED
    if since is not None:
        began = began.filter(pl.col("valid_from") > since)
        ended = history.filter(valid_at(since), pl.col("valid_to") <= at)
        columns = _comparable_columns(history, at, observed, since)
    return _compared(began.select(_COLUMNS), ended.select(_COLUMNS), columns)


def _comparable_columns(
    history: pl.LazyFrame, at: datetime, observed: Observed, since: datetime
) -> list[str]:
    """Return the tracked columns whose values can be compared between the two snapshots.

    A product does not count as changed if the service only started or stopped sending a column.
    Only catalogs that both snapshots cover are checked, because the rows of a withdrawn catalog
    keep their old values.
    """
    is_covered = observed[at].is_covered & observed[since].is_covered
    filled = history.filter(is_covered).select(
        pl.col(_CURRENT_COLUMNS).is_not_null().filter(valid_at(time)).any().name.prefix(when)
        for when, time in (("old_", since), ("new_", at))
    )
    found = filled.collect(engine="streaming").row(0, named=True)
    return [
        column
        for column in TRACKED
        if column not in _CURRENT_COLUMNS or (found[f"old_{column}"] and found[f"new_{column}"])
    ]


def _compared(current: pl.LazyFrame, previous: pl.LazyFrame, columns: list[str]) -> pl.DataFrame:
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
    kinds = [
        changes.filter(pl.col("change") == kind).head(rows) for kind, rows in _MAX_CHANGES.items()
    ]
    return cells_table(map(_cells, pl.concat(kinds).collect().to_dicts()))


def _cells(row: Row) -> Cells:
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
