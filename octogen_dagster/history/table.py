"""The history of a table: a row for each time that a row's values lasted, as pure functions.

The rows of a key, such as that of a product, are times without overlap, each from `valid_from`
until before `valid_to`. A snapshot says what holds from its time `at` until the next snapshot of
its catalog. Putting it in replaces what the rows say of that time:

               at            until
    rows        |              |
      ────A─────┼────)[────B───┼─────)[────C────
    before      |              |
      ────A─────)              |                    the rows that began earlier end at `at`
    then        |              |
                [──────S───────)                    the snapshot's row, if it has the product
    after       |              |
                |              [──B──)[────C────    the rows that end later begin at `until`

Neighbours with equal values become one row. Taking a snapshot out is the same with other rows for
`then`: what held just before `at` goes on. So the rows and `Observed`, which says what snapshots
there were, are together as much as the tracked columns of all of them, and the result depends only
on which snapshots are in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import polars as pl

from octogen_dagster.frames.cells import (
    MAX_CURRENCIES,
    MEDIAN,
    NO_CURRENCY,
    Cells,
    Figures,
    Row,
    cells_table,
    change_text,
    currency_of,
    first_rows,
    median_text,
    price_text,
    product_link,
)
from octogen_dagster.frames.columns import COLUMN_DESCRIPTIONS, TIME
from octogen_dagster.frames.kinds import Markdown, Published, Shown, TableKind
from octogen_dagster.frames.markdown import MAX_EARLIER, trend
from octogen_dagster.frames.source import Metrics
from octogen_dagster.frames.stored import KEY, PRODUCT_KEY, TRACKED, known_price
from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.history.observed import Contents, Observed, read_observed
from octogen_dagster.history.rules import history_checks
from octogen_dagster.history.tracking import CHANGES, PRODUCTS, SEEN, Tracking
from octogen_dagster.printable import count

HISTORY_SCHEMA = PRODUCTS.schema


def _time_descriptions(tracking: Tracking) -> dict[str, str]:
    row = tracking.row
    return {
        "valid_from": "The time of the first snapshot with these values (UTC).",
        "valid_to": "The time of the first later snapshot without them (UTC); null if the last "
        "snapshot has them.",
        "is_current": f"True if the last snapshot has the {row} with these values.",
        "change": "What happened at `valid_from`: appeared, reappeared or changed.",
        "changed": f"What changed of a changed {row}: {', '.join(tracking.watched)}, or "
        f"{SEEN} if it moved to another page.",
    }


HISTORY_DESCRIPTIONS = {
    "catalog_key": "The catalog the product belongs to.",
    "uuid": "The product's identity in Octogen.",
    "product_url": "The product's page at the merchant at that time.",
    "brand_name": "The brand's name in the last snapshot with the product.",
    "category": "The levels of its category in the last snapshot with the product.",
    **{name: COLUMN_DESCRIPTIONS[name] for name in TRACKED},
}

_MAX_DROPS = 10
ROWS_AT_ONCE = 50_000
"""The rows of a history and of a snapshot that are in memory at the same time."""
_SAMPLED = 64
"""One in so many rows says where to divide them."""
_CATALOG, _UNTIL = "octogen_catalog", "octogen_until"
_IS_COVERED, _BEGINS, _PAGE = "octogen_is_covered", "octogen_begins", "octogen_page"


def valid_at(moment: datetime) -> pl.Expr:
    """The rows whose values lasted at a moment."""
    is_over = pl.col("valid_to") <= moment
    return (pl.col("valid_from") <= moment) & ~is_over.fill_null(value=False)


def put_in(
    history: pl.LazyFrame,
    snapshot: pl.LazyFrame,
    at: datetime,
    observed: Observed,
    tracking: Tracking = PRODUCTS,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a history with a snapshot put in, in their order.

    `observed` has what is in the history, and the snapshot at `at`. The values of each key are
    compared by a hash first; only the rows of those that differ are computed anew.
    """
    covered = history.filter(valid_at(at), observed[at].is_covered)
    differing = _differing(covered, snapshot, tracking)
    kept = snapshot.select(*tracking.types)
    yield from _replaced(history, kept, differing, at, observed, tracking=tracking)


def take_out(
    history: pl.LazyFrame, at: datetime, observed: Observed, tracking: Tracking = PRODUCTS
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a history with the snapshot at `at` taken out, in their order."""
    is_touched = pl.any_horizontal(pl.col("valid_from", "valid_to") == at)
    touched = history.filter(is_touched, observed[at].is_covered)
    differing = touched.select(tracking.hashed.unique()).collect(engine="streaming").to_series()
    remaining = {time: each for time, each in observed.items() if time != at}
    nothing = pl.LazyFrame(schema=tracking.types)
    yield from _replaced(history, nothing, differing, at, remaining, tracking=tracking)


def _differing(rows: pl.LazyFrame, snapshot: pl.LazyFrame, tracking: Tracking) -> pl.Series:
    """The keys that differ between rows and a snapshot, or are in one only."""
    values = [name for name in tracking.types if name not in tracking.key]
    hashed = [tracking.hashed.alias("key"), pl.struct(*values).hash().alias("values")]
    old, new = (each.select(hashed).collect(engine="streaming") for each in (rows, snapshot))
    both = new.lazy().join(old.lazy(), on="key", how="full", coalesce=True, suffix="_old")
    differs = pl.col("values").ne_missing(pl.col("values_old"))
    return both.filter(differs).select("key").collect(engine="streaming").to_series()


def _replaced(
    history: pl.LazyFrame,
    snapshot: pl.LazyFrame,
    differing: pl.Series,
    at: datetime,
    observed: Observed,
    *,
    tracking: Tracking,
) -> Iterator[pl.DataFrame]:
    """Yield a history in which the differing keys have other values at a time.

    In the catalogs that the snapshot of that time covers, these are the values in `snapshot`; in
    others what held before goes on.
    """
    is_differing = tracking.hashed.is_in(differing.implode())
    if len(differing) <= ROWS_AT_ONCE:  # then they are read once, and not for each range
        snapshot = snapshot.filter(is_differing).collect(engine="streaming").lazy()
    first = tracking.order[0]
    for is_within in key_ranges(history, snapshot, column=first):
        rows, new = (
            frame.filter(is_within).collect(engine="streaming") for frame in (history, snapshot)
        )
        differs = rows.select(is_differing).to_series()
        computed = _computed(rows.filter(differs), new.filter(is_differing), at, observed, tracking)
        # A sort takes half the CPU time of merging sorted frames.
        yield pl.concat([rows.filter(~differs), computed]).sort(first, maintain_order=True)


def key_ranges(*frames: pl.LazyFrame, column: str = "uuid") -> Iterator[pl.Expr]:
    """Ranges of a column, one after the other, in each of which frames have some 50,000 rows."""
    value = pl.col(column)
    sampled = pl.concat([frame.select(value.gather_every(_SAMPLED)) for frame in frames])
    values = sampled.collect(engine="streaming").to_series().sort()
    step = -(-ROWS_AT_ONCE // _SAMPLED)
    cuts = values.gather_every(step, offset=step).unique(maintain_order=True)
    for begin, end in pairwise([None, *cuts, None]):
        is_within = pl.lit(True) if begin is None else value >= begin
        yield is_within if end is None else is_within & (value < end)


def _computed(
    old: pl.DataFrame, new: pl.DataFrame, at: datetime, observed: Observed, tracking: Tracking
) -> pl.DataFrame:
    """Compute the rows of some keys from all their rows and from their values at a time."""
    if old.is_empty() and new.is_empty():
        return old
    old, new = (each.with_columns(tracking.catalog.alias(_CATALOG)) for each in (old, new))
    catalogs = pl.concat([old[_CATALOG], new[_CATALOG]]).unique()
    later = [time for time in observed if time > at]
    known = pl.DataFrame(
        {
            _CATALOG: catalogs,
            _IS_COVERED: [at in observed and observed[at].covers(each) for each in catalogs],
            _UNTIL: [
                min((time for time in later if observed[time].covers(each)), default=None)
                for each in catalogs
            ],
        },
        schema_overrides={_UNTIL: TIME},
    )
    old, new = (each.join(known, on=_CATALOG, nulls_equal=True) for each in (old, new))
    start, end, until = map(pl.col, ("valid_from", "valid_to", _UNTIL))
    moment = pl.lit(at, TIME)
    before = old.filter(start < moment).with_columns(valid_to=pl.min_horizontal(end, moment))
    gone_on = before.filter(end == moment, ~pl.col(_IS_COVERED))
    after = old.filter(until.is_not_null(), (end > until).fill_null(value=True))
    after = after.with_columns(valid_from=pl.max_horizontal(start, until))
    then = pl.concat([new, gone_on.select(new.columns)])
    then = then.with_columns(valid_from=moment, valid_to=until)
    rows = [
        each.select(*tracking.types, "valid_from", "valid_to") for each in (before, then, after)
    ]
    return _described(pl.concat(rows).sort(*tracking.order, "valid_from"), tracking)


def _described(rows: pl.DataFrame, tracking: Tracking) -> pl.DataFrame:
    """Merge equal rows that go on, and say what happened at the beginning of each."""
    key = list(tracking.key)
    differs = {
        kind: pl.any_horizontal(pl.col(names).ne_missing(pl.col(names).shift()))
        for kind, names in tracking.watched.items()
    }
    seen = dict.fromkeys(tracking.only_seen, key)
    if SEEN in seen:
        known = pl.when(normalized_url(pl.col(SEEN)).is_not_null()).then(SEEN)
        rows = rows.with_columns(pl.coalesce(known.forward_fill().over(key), SEEN))
        rows = rows.with_columns(normalized_url(pl.col(SEEN)).alias(_PAGE))
        differs[SEEN] = pl.col(_PAGE).ne_missing(pl.col(_PAGE).shift())
        seen[SEEN] = [*key, _PAGE]
    changed = pl.concat_list(
        pl.when(differs[kind]).then(pl.lit(kind)) for kind in differs
    ).list.drop_nulls()
    goes_on = tracking.goes_on
    begins = ~goes_on | pl.any_horizontal(differs.values())
    return (
        rows.with_columns(
            *(pl.col(name).last().over(of) for name, of in seen.items()),
            tracking.change.alias("change"),
            pl.when(goes_on).then(changed).alias("changed"),
            begins.alias(_BEGINS),
        )
        # Each row that begins opens a group. The rows after it in the group say the same, so it
        # lasts until the last of them ends.
        .with_columns(pl.col("valid_to").last().over(pl.col(_BEGINS).cum_sum()))
        .filter(_BEGINS)
        .with_columns(pl.col("valid_to").is_null().alias("is_current"))
        .select(tracking.schema.names())
    )


def history_metrics(
    history: pl.LazyFrame, at: datetime | None, tracking: Tracking = PRODUCTS
) -> Metrics:
    """Return what happened in the last snapshot of a history, at a time, and its median prices."""
    last = pl.lit(at, TIME)  # null if there is none
    begins = pl.col("valid_from") == last
    happened = {name: (begins & (pl.col("change") == name)).sum() for name in CHANGES}
    # A change ends one row and begins another, so its product has not disappeared.
    gone = (pl.col("valid_to") == last).sum() - happened["changed"]
    current = pl.col("is_current").sum()
    counted = history.select(**happened, disappeared=gone, **{_current(tracking): current})
    counts = counted.collect(engine="streaming").row(0, named=True)
    return {
        **{name: int(number) for name, number in counts.items()},
        **(_median_prices(history.filter("is_current")) if tracking.of_products else {}),
    }


def figures_at(
    history: pl.LazyFrame, times: Sequence[datetime], tracking: Tracking = PRODUCTS
) -> list[Metrics]:
    """Return the number of rows that held at each time, and their median price.

    The price is in the currency with the most products at the last time. However many times there
    are, the history is read twice.
    """
    last = history.filter(valid_at(times[-1]))
    name = next(iter(_median_prices(last)), "") if tracking.of_products else ""
    rows = history.select("valid_from", "valid_to")
    if name:
        of_currency = (
            pl.col("currency")
            .str.to_uppercase()
            .eq_missing(pl.lit(currency_of(name, MEDIAN) or None, pl.String))
        )
        price = pl.when(of_currency).then(known_price(pl.col("current_price")))
        rows = history.select("valid_from", "valid_to", price.alias(name))
    at_times = []
    for place, at in enumerate(times):
        figures = [valid_at(at).sum().alias(_current(tracking))]
        if name:
            figures.append(pl.col(name).filter(valid_at(at)).median().round(4))
        at_times.append(pl.struct(figures).alias(str(place)))
    found = rows.select(at_times).collect(engine="streaming").row(0)
    return [{key: each for key, each in at.items() if each is not None} for at in found]


def _current(tracking: Tracking) -> str:
    """The name of the number of rows that hold in the last snapshot."""
    return f"current_{tracking.row}s"


def _median_prices(products: pl.LazyFrame) -> Metrics:
    """The median prices in the five currencies with the most products.

    What is no code of a currency would be any text in the name of a figure, and is left out.
    """
    price = known_price(pl.col("current_price"))
    priced = (
        products.filter(price.is_not_null())
        .group_by(pl.col("currency").str.to_lowercase())
        .agg(price.quantile(0.5).alias("median"), pl.len())  # as of products and brands
        .filter(pl.col("currency").str.contains("^[a-z]{3}$").fill_null(value=True))
    )
    largest = priced.sort("len", "currency", descending=[True, False]).head(MAX_CURRENCIES)
    return {
        f"{MEDIAN}{currency or NO_CURRENCY}": round(median, 4)
        for currency, median, _ in largest.collect(engine="streaming").iter_rows()
    }


def price_drops(history: pl.LazyFrame, at: datetime | None, number: int) -> pl.DataFrame:
    """Return the products whose price fell by the largest share in the snapshot at a time."""
    moment = pl.lit(at, TIME)
    price, unit = known_price(pl.col("current_price")), pl.col("currency").str.to_lowercase()
    columns = [KEY.alias("key"), unit, price]
    fell = history.filter(pl.col("valid_from") == moment, pl.col("changed").list.contains("price"))
    old = history.filter(pl.col("valid_to") == moment).select(columns)
    both = fell.select(columns).join(old, on=["key", "currency"], suffix="_old", nulls_equal=True)
    change = (100 * price / pl.col("current_price_old") - 100).round(1).alias("change_percent")
    # All products may have changed: first these columns, then the texts of the largest drops.
    dropped = both.filter(price < pl.col("current_price_old")).select(
        "key", pl.col("current_price_old").alias("before"), change
    )
    largest = dropped.bottom_k(number, by="change_percent").collect(engine="streaming")
    texts = fell.filter(KEY.is_in(largest["key"].implode())).with_columns(KEY.alias("key"))
    return (
        texts.collect(engine="streaming")
        .join(largest, on="key")
        .sort("change_percent", "uuid")
        .select(
            *PRODUCT_KEY,
            "product_url",
            "title",
            pl.col("valid_from").alias("at"),
            "before",
            price.alias("after"),
            "change_percent",
            "currency",
        )
    )


def _cells(row: Row) -> Cells:
    price = price_text(row["current_price"], row["currency"])
    sold_out = "sold out" if row["in_stock"] is False else ""
    return {
        "product": product_link(row, row["title"]),
        "price": ", ".join(filter(None, [price, sold_out])),
        "from": row["valid_from"],
        "until": row["valid_to"],
    }


def _drop_cells(row: Row) -> Cells:
    return {
        "product": product_link(row, row["title"]),
        "price": f"{row['before']:,.2f} → {price_text(row['after'], row['currency'])}",
        "change": change_text(row["change_percent"]),
    }


def _left_out(of: Published) -> Shown:
    """The snapshots without a place. A check judges by them, so no figure that fails hides them."""
    left_out = Contents.read(of.file_metadata).left_out
    return {"left_out": Markdown("\n".join(f"* {each.name}: {each.reason}" for each in left_out))}


def _lacking(of: Published) -> Shown:
    """The columns that the last snapshot of a linked view does not have."""
    return {"lacking": Markdown(", ".join(Contents.read(of.file_metadata).lacking))}


def _price_drops(of: Published) -> Shown:
    last = max(read_observed(of.file_metadata), default=None)
    drops = price_drops(of.rows, last, _MAX_DROPS).to_dicts() if last else ()
    return {"largest_price_drops": cells_table(map(_drop_cells, drops))}


def history_kind(tracking: Tracking, descriptions: Mapping[str, str], **others: Any) -> TableKind:
    """The kind of the history of a table whose columns have these descriptions."""
    current = _current(tracking)

    def sentence(metrics: Figures, _: pl.LazyFrame) -> str:
        if current not in metrics:
            return f"**{count(metrics['rows'], 'row')}**"
        text = (
            f"**{count(metrics[current], tracking.row)}** in "
            f"{count(metrics['snapshots'], 'snapshot')}; the last one: {metrics['appeared']:,} "
            f"new, {metrics['disappeared']:,} gone, {metrics['changed']:,} changed"
        )
        if metrics["reappeared"]:
            text += f", {metrics['reappeared']:,} back"
        lacking = [f"without {metrics['lacking']}"] if metrics.get("lacking") else []
        return "; ".join([text, *median_text(metrics), *lacking])

    def figures(of: Published) -> Shown:
        """What happened in the last snapshot."""
        times = read_observed(of.file_metadata)
        last = max(times, default=None)
        return {"snapshots": len(times), **history_metrics(of.rows, last, tracking)}

    def line(of: Published) -> Shown:
        """Lines over the last snapshot and those before it, which the rows say, too."""
        times = sorted(read_observed(of.file_metadata))
        shown = times[-MAX_EARLIER - 1 :]
        *earlier, last = figures_at(of.rows, shown, tracking) if shown else [{}]
        last = {"snapshots": len(times), **last}
        return {"trend": Markdown(trend({current: f"{tracking.row}s"}, last, earlier))}

    parts = {
        "snapshots left out": _left_out,
        "columns that the view lacks": _lacking,
        "figures of the history": figures,
        "line of the history": line,
        **others.pop("parts", {}),
    }
    kind = TableKind(
        descriptions={**descriptions, **_time_descriptions(tracking)},
        key=(*tracking.key, "valid_from"),
        sentence=sentence,
        parts=parts,
        first=("appeared", "disappeared", "changed", MEDIAN),
        line=None,
        **history_checks(tracking),
    )
    return replace(kind, **others)


HISTORY_KIND = history_kind(
    PRODUCTS,
    HISTORY_DESCRIPTIONS,
    schema=HISTORY_SCHEMA,
    made_from={
        **{name: [name] for name in ("uuid", "catalog_key", "product_url", *TRACKED)},
        **{"brand_name": ["brand"], "category": ["category_path"]},
        **{name: ["fetched_at", *TRACKED] for name in ("valid_from", "valid_to", "is_current")},
        "change": [*PRODUCT_KEY, *TRACKED],
        "changed": TRACKED,
    },
    preview=first_rows(
        _cells,
        [
            "title",
            "product_url",
            "current_price",
            "currency",
            "in_stock",
            "valid_from",
            "valid_to",
        ],
    ),
    parts={"price drops": _price_drops},
    first=("largest_price_drops", "appeared", "disappeared", "changed", MEDIAN),
)
