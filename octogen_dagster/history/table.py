"""Functions that compute a history's rows.

Each row covers a period in which the values stayed the same. Rows with the same key, such as the
rows of one product, do not overlap. Each row is valid from `valid_from` until just before
`valid_to`. A snapshot is valid from its time `at` until the next snapshot of the same catalog.
Adding a snapshot replaces the rows in that period:

               at            until
    rows        |              |
      ────A─────┼────)[────B───┼─────)[────C────
    before      |              |
      ────A─────)              |                    earlier rows are cut at `at`
    during      |              |
                [──────S───────)                    the snapshot's row, if it has the product
    after       |              |
                |              [──B──)[────C────    later rows start at `until`

Adjacent rows with equal values are merged. Removing a snapshot works the same way, except that the
row just before `at` is extended over the period. Together, the rows and `Observed` preserve the
tracked columns of every snapshot. The order in which snapshots are added makes no difference.
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
        "valid_to": "The time of the next snapshot in which the values differ or "
        f"the {row} is missing (UTC); null if the latest snapshot still has these values.",
        "is_current": f"True if the {row} has these values in the latest snapshot.",
        "change": "What happened at `valid_from`: appeared, reappeared or changed.",
        "changed": f"The kinds of change: {', '.join(dict.fromkeys([*tracking.watched, SEEN]))}. "
        f"Null if the {row} appeared or reappeared.",
    }


HISTORY_DESCRIPTIONS = {
    "catalog_key": "The catalog the product belongs to.",
    "uuid": "The product's ID in Octogen.",
    "product_url": "The product's URL while these values were valid.",
    "brand_name": "The product's latest brand.",
    "category": "The product's latest category path.",
    **{name: COLUMN_DESCRIPTIONS[name] for name in TRACKED},
}

_MAX_DROPS = 10
ROWS_AT_ONCE = 50_000
"""The approximate number of history and snapshot rows held in memory at the same time."""
_SAMPLED = 64
"""The interval between the rows that are sampled to choose key ranges."""
_CATALOG, _UNTIL = "octogen_catalog", "octogen_until"
_IS_COVERED, _BEGINS, _PAGE = "octogen_is_covered", "octogen_begins", "octogen_page"


def valid_at(moment: datetime) -> pl.Expr:
    """Return an expression that is true for rows valid at a given time."""
    is_over = pl.col("valid_to") <= moment
    return (pl.col("valid_from") <= moment) & ~is_over.fill_null(value=False)


def put_in(
    history: pl.LazyFrame,
    snapshot: pl.LazyFrame,
    at: datetime,
    observed: Observed,
    tracking: Tracking = PRODUCTS,
) -> Iterator[pl.DataFrame]:
    """Yield a history's sorted rows after adding a snapshot.

    `observed` already includes the snapshot. Values are compared by hash first. Only rows with
    changed values are recomputed.
    """
    covered = history.filter(valid_at(at), observed[at].is_covered)
    differing = _differing(covered, snapshot, tracking)
    kept = snapshot.select(*tracking.types)
    yield from _replaced(history, kept, differing, at, observed, tracking=tracking)


def take_out(
    history: pl.LazyFrame, at: datetime, observed: Observed, tracking: Tracking = PRODUCTS
) -> Iterator[pl.DataFrame]:
    """Yield a history's sorted rows after removing the snapshot with the time `at`."""
    is_touched = pl.any_horizontal(pl.col("valid_from", "valid_to") == at)
    touched = history.filter(is_touched, observed[at].is_covered)
    differing = touched.select(tracking.hashed.unique()).collect(engine="streaming").to_series()
    remaining = {time: each for time, each in observed.items() if time != at}
    empty = pl.LazyFrame(schema=tracking.types)
    yield from _replaced(history, empty, differing, at, remaining, tracking=tracking)


def _differing(rows: pl.LazyFrame, snapshot: pl.LazyFrame, tracking: Tracking) -> pl.Series:
    """Return the hashed keys of rows that differ between the frames or are missing in one frame."""
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
    """Yield a history's rows, with the snapshot's values for `differing` keys from `at` onward.

    Catalogs that the snapshot does not cover keep their previous values.
    """
    is_differing = tracking.hashed.is_in(differing.implode())
    if len(differing) <= ROWS_AT_ONCE:  # read once instead of for each range
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
    """Yield filter expressions that split a column's values into consecutive ranges.

    Each range contains about `ROWS_AT_ONCE` rows of all frames together.
    """
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
    """Compute the history rows for some keys.

    `old` contains the existing rows, and `new` contains the values from `at` onward.
    """
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
    continued = before.filter(end == moment, ~pl.col(_IS_COVERED))
    after = old.filter(until.is_not_null(), (end > until).fill_null(value=True))
    after = after.with_columns(valid_from=pl.max_horizontal(start, until))
    during = pl.concat([new, continued.select(new.columns)])
    during = during.with_columns(valid_from=moment, valid_to=until)
    rows = [
        each.select(*tracking.types, "valid_from", "valid_to") for each in (before, during, after)
    ]
    return _merged(pl.concat(rows).sort(*tracking.order, "valid_from"), tracking)


def _merged(rows: pl.DataFrame, tracking: Tracking) -> pl.DataFrame:
    """Merge adjacent rows with equal values, and compute columns such as `change`."""
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
        # A row that differs from the previous row starts a group. The group's other rows have equal
        # values, so the merged row ends when the group's last row ends.
        .with_columns(pl.col("valid_to").last().over(pl.col(_BEGINS).cum_sum()))
        .filter(_BEGINS)
        .with_columns(pl.col("valid_to").is_null().alias("is_current"))
        .select(tracking.schema.names())
    )


def history_metrics(
    history: pl.LazyFrame, at: datetime | None, tracking: Tracking = PRODUCTS
) -> Metrics:
    """Return the change counts and median prices for the latest snapshot.

    `at` is the time of the latest snapshot.
    """
    last = pl.lit(at, TIME)  # null if there are no snapshots
    begins = pl.col("valid_from") == last
    changes = {name: (begins & (pl.col("change") == name)).sum() for name in CHANGES}
    # A change ends one row and starts another, so the product has not disappeared.
    gone = (pl.col("valid_to") == last).sum() - changes["changed"]
    current = pl.col("is_current").sum()
    counted = history.select(**changes, disappeared=gone, **{_current(tracking): current})
    counts = counted.collect(engine="streaming").row(0, named=True)
    return {
        **{name: int(number) for name, number in counts.items()},
        **(_median_prices(history.filter("is_current")) if tracking.of_products else {}),
    }


def figures_at(
    history: pl.LazyFrame, times: Sequence[datetime], tracking: Tracking = PRODUCTS
) -> list[Metrics]:
    """Return the number of valid rows and the median price at each given time.

    The median price is in the currency that is most common at the last time. The history is read
    only twice.
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
    """Return the metric name for the number of current rows."""
    return f"current_{tracking.row}s"


def _median_prices(products: pl.LazyFrame) -> Metrics:
    """Return the median prices in the five most common currencies.

    Values that are not currency codes are ignored, because currencies become part of a metric's
    name.
    """
    price = known_price(pl.col("current_price"))
    priced = (
        products.filter(price.is_not_null())
        .group_by(pl.col("currency").str.to_lowercase())
        .agg(price.quantile(0.5).alias("median"), pl.len())  # like the other median metrics
        .filter(pl.col("currency").str.contains("^[a-z]{3}$").fill_null(value=True))
    )
    largest = priced.sort("len", "currency", descending=[True, False]).head(MAX_CURRENCIES)
    return {
        f"{MEDIAN}{currency or NO_CURRENCY}": round(median, 4)
        for currency, median, _ in largest.collect(engine="streaming").iter_rows()
    }


def price_drops(history: pl.LazyFrame, at: datetime | None, number: int) -> pl.DataFrame:
    """Return the products with the largest percentage price drops at the time `at`."""
    moment = pl.lit(at, TIME)
    price, unit = known_price(pl.col("current_price")), pl.col("currency").str.to_lowercase()
    columns = [KEY.alias("key"), unit, price]
    fell = history.filter(pl.col("valid_from") == moment, pl.col("changed").list.contains("price"))
    old = history.filter(pl.col("valid_to") == moment).select(columns)
    both = fell.select(columns).join(old, on=["key", "currency"], suffix="_old", nulls_equal=True)
    change = (100 * price / pl.col("current_price_old") - 100).round(1).alias("change_percent")
    # Every product might have changed, so texts are read only for the largest drops.
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
    # A separate part, because the check `nothing_left_out` needs it even if other parts fail.
    left_out = Contents.read(of.file_metadata).left_out
    return {"left_out": Markdown("\n".join(f"* {each.name}: {each.reason}" for each in left_out))}


def _lacking(of: Published) -> Shown:
    return {"lacking": Markdown(", ".join(Contents.read(of.file_metadata).lacking))}


def _price_drops(of: Published) -> Shown:
    last = max(read_observed(of.file_metadata), default=None)
    drops = price_drops(of.rows, last, _MAX_DROPS).to_dicts() if last else ()
    return {"largest_price_drops": cells_table(map(_drop_cells, drops))}


def history_kind(tracking: Tracking, descriptions: Mapping[str, str], **others: Any) -> TableKind:
    """Return the table kind for a history."""
    current = _current(tracking)

    def sentence(metrics: Figures, _: pl.LazyFrame) -> str:
        if current not in metrics:
            return f"**{count(metrics['rows'], 'row')}**"
        text = (
            f"**{count(metrics[current], tracking.row)}** in "
            f"{count(metrics['snapshots'], 'snapshot')}; the latest: {metrics['appeared']:,} "
            f"new, {metrics['disappeared']:,} gone, {metrics['changed']:,} changed"
        )
        if metrics["reappeared"]:
            text += f", {metrics['reappeared']:,} back"
        lacking = [f"without {metrics['lacking']}"] if metrics.get("lacking") else []
        return "; ".join([text, *median_text(metrics), *lacking])

    def figures(of: Published) -> Shown:
        times = read_observed(of.file_metadata)
        last = max(times, default=None)
        return {"snapshots": len(times), **history_metrics(of.rows, last, tracking)}

    def line(of: Published) -> Shown:
        times = sorted(read_observed(of.file_metadata))
        shown = times[-MAX_EARLIER - 1 :]
        *earlier, last = figures_at(of.rows, shown, tracking) if shown else [{}]
        last = {"snapshots": len(times), **last}
        return {"trend": Markdown(trend({current: f"{tracking.row}s"}, last, earlier))}

    parts = {
        "snapshots left out": _left_out,
        "columns missing from the view": _lacking,
        "history figures": figures,
        "history trend": line,
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
