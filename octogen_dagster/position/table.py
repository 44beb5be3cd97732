"""Price positions compare your prices with competitors' prices on any day in the history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from octogen_dagster.errors import OctogenError, Persistence
from octogen_dagster.frames.cells import Cells, Figures, Row, cells_table, price_text, product_link
from octogen_dagster.frames.columns import TIME
from octogen_dagster.frames.kinds import Check, TableKind, Verdict
from octogen_dagster.frames.stored import IN_STOCK, PRODUCT_KEY, known_price
from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.printable import count
from octogen_dagster.validation import moment_of

PRICE_LIST_COLUMNS = ("sku", "product_url", "price", "currency")
"""The required columns in a price list."""
MATCHED = "matched"
UNDERCUT, UNMATCHED = "undercut_percent", "unmatched_percent"
"""The check names, which are also used for arguments and metadata."""
_UNPRICED = "unpriced"
STATUSES = (
    *(MATCHED, "no_price", "out_of_stock", "other_currency", "no_currency", "gone"),
    *("not_found", _UNPRICED),
)
"""The possible statuses of a row.

If several products have the same URL, the product whose status comes first in this list is used.
"""
POSITION_DESCRIPTIONS = {
    "status": "`matched`, or the reason for no match: `unpriced`, `not_found`, `gone`, "
    "`no_currency`, `other_currency`, `out_of_stock` or `no_price`.",
    "competitor_catalog_key": "The catalog that contains the competitor's product.",
    "competitor_uuid": "The competitor product's id in Octogen.",
    "competitor_title": "The competitor product's title at the time of the position.",
    "competitor_price": "The competitor's price at the time of the position, in "
    "`competitor_currency`.",
    "competitor_currency": "ISO 4217 code for `competitor_price`.",
    "competitor_in_stock": "True if the competitor's product was in stock; null if unknown.",
    "competitor_since": "The time (UTC) from which the competitor's price and stock status apply.",
    "difference": "Your price minus the competitor's price; null if the row has no match.",
    "index": "Your price divided by the competitor's price. If it is above 1, you are more "
    "expensive.",
    "competitors": "The number of matched competitor pages for the SKU. It is 0 if your currency "
    "is unknown and the competitors use different currencies.",
    "cheapest_price": "The lowest competitor price for the SKU.",
    "cheapest_url": "The URL of the product page with the lowest price.",
    "rank": "The rank of your price: 1 if no competitor is cheaper, 2 if one competitor is "
    "cheaper, and so on; null if you have no price or no competitor matches.",
    "median_price": "The median competitor price for the SKU.",
    "median_index": "Your price divided by the median competitor price.",
}

_TYPES = {
    **dict.fromkeys(("competitor_price", "difference", "index", "cheapest_price"), pl.Float64()),
    **dict.fromkeys(("median_price", "median_index"), pl.Float64()),
    **dict.fromkeys(("competitors", "rank"), pl.Int64()),
    "competitor_in_stock": pl.Boolean(),
    "competitor_since": TIME,
}
POSITION_SCHEMA = pl.Schema({name: _TYPES.get(name, pl.String()) for name in POSITION_DESCRIPTIONS})
"""The columns that a position adds to a price list."""

URL, AT, LIST_PRICE, PAGE_STATUS = "octogen_url", "octogen_at", "octogen_own", "octogen_status"
_ROW, _GONE_AT, _MATCH = "octogen_row", "octogen_gone_at", "octogen_match"
_IS_THERE, _CURRENCY, _NEXT = "octogen_is_there", "octogen_currency", "octogen_next"
_POINT, _FIRST, _LAST = "octogen_point", "octogen_first", "octogen_last"
_NEVER = pl.lit(2**62, pl.Int64).cast(TIME)  # later than NOW
NOW = datetime.max.replace(tzinfo=UTC)
"""A time after every snapshot, used to select the latest values."""
_MAX_ROWS = 5
_PAGE = [*PRODUCT_KEY, URL]
_TRACKED = ["title", "current_price", "currency", "in_stock", "is_active"]
_COMPETITOR = [name for name in POSITION_DESCRIPTIONS if name.startswith("competitor_")]
_MICROSECOND = timedelta(microseconds=1)


def price_position(
    history: pl.LazyFrame,
    price_list: pl.DataFrame | pl.LazyFrame,
    *,
    as_of: datetime | date | None = None,
) -> pl.DataFrame:
    """Compare your prices with competitors' prices. The result has one row per price-list row.

    Each row has the price list's columns, the competitor's price and stock, the time from which
    they applied, and the `difference` and `index` (your price ÷ the competitor's price). `status`
    is `matched` or the reason why there is no match: `unpriced` (your price or its currency is
    missing), `not_found` (no product in the history has this URL), `gone` (the product left its
    catalog), `no_currency` or `other_currency` (prices cannot be compared), `out_of_stock` or
    `no_price`. Each row also has the SKU's cheapest competitor, the rank of your price, and the
    ratio of your price to the competitors' median price. A price of zero counts as missing.

    Products are matched by normalized URL. Normalizing removes the scheme, leading `www.`, default
    port, trailing slash, fragment and campaign parameters. It also converts the host to lower case,
    sorts the parameters and makes the percent-encoding uniform. Only prices in the same currency
    are compared.

    Args:
        history: A complete history from `scan_history` without `as_of`, or several such histories
            concatenated.
        price_list: Your price list, with the columns `sku`, `product_url` (a competitor's product
            page; a SKU can have several pages), `price` and `currency`. Other columns are kept.
        as_of: The time of the position. A date means midnight UTC, and None means the latest
            snapshots.

    Raises:
        ValueError: The price list lacks a required column, has a column that the position adds, or
            has a price that is not a number.
    """
    table = keyed(checked_price_list(price_list))
    at = NOW if as_of is None else moment_of(as_of)
    return _position(rows_on(history, table[URL]), table, at)


def price_summary(position: pl.DataFrame, by: str | Sequence[str]) -> pl.DataFrame:
    """Summarize a price position, grouped by one or more columns.

    The result contains the columns in `by`, the number of SKUs (`skus`), rows (`pairs`) and matched
    rows (`matched`), the percentages of matched rows in which your price is lower
    (`cheaper_percent`) or higher (`more_expensive_percent`), and the `median_index`.

    Args:
        position: A frame from `price_position`.
        by: Columns such as `brand`, `category` or `sku`.
    """
    columns = [by] if isinstance(by, str) else list(by)
    return position.group_by(columns).agg(*_SUMMARY).sort(columns)


def price_index(
    history: pl.LazyFrame,
    price_list: pl.DataFrame | pl.LazyFrame,
    *,
    days: int = 30,
    until: datetime | date | None = None,
) -> pl.DataFrame:
    """Return the daily price index, which compares your price list with competitors' past prices.

    The result has one row for each `day` (UTC) from the first snapshot to `until`. A day without
    changes repeats the values of the previous day. The columns are `index`, which is the geometric
    mean of the matched rows' indexes at the end of the day, and the columns of `price_summary`
    except `skus` and `pairs`.

    Args:
        history: The history, as in `price_position`.
        price_list: Your price list, as in `price_position`.
        days: The maximum number of days, counted back from `until`.
        until: The last day, or a time on this day, such as the time of the latest snapshot. Days
            are in UTC. None means the day of the latest change in the history.
    """
    table = keyed(checked_price_list(price_list))
    rows = rows_on(history, table[URL])
    ends = history.select(
        pl.col("valid_from").min().alias("first"),
        pl.max_horizontal(pl.col("valid_from", "valid_to").max()).alias("last"),
    ).collect(engine="streaming")
    first, changed = ends.row(0)
    last = changed if until is None else moment_of(until)
    found = []
    for back in range(days if first is not None else 0):
        day = last.date() - timedelta(days=back)
        if day < first.date():
            break
        position = _position(rows, table, moment_of(day + timedelta(days=1)) - _MICROSECOND)
        index = pl.col("index").log().mean().exp()
        found.append(position.select(pl.lit(day).alias("day"), index, *_SUMMARY[2:]))
    schema = {"day": pl.Date, "index": pl.Float64, **_SUMMARY_TYPES}
    return pl.concat(reversed(found)) if found else pl.DataFrame(schema=schema)


_WORDS = {"cheaper": "cheaper", "more_expensive": "more expensive"}
_IS_MATCHED = pl.col("status") == MATCHED
_OF_INDEX = pl.col("index").drop_nulls()
_SUMMARY = [
    pl.col("sku").n_unique().cast(pl.Int64).alias("skus"),
    pl.len().cast(pl.Int64).alias("pairs"),
    _IS_MATCHED.sum().cast(pl.Int64).alias("matched"),
    ((_OF_INDEX < 1).mean() * 100).alias("cheaper_percent"),
    ((_OF_INDEX > 1).mean() * 100).alias("more_expensive_percent"),
    pl.col("index").median().alias("median_index"),
]
_SUMMARY_TYPES = {
    "matched": pl.Int64,
    "cheaper_percent": pl.Float64,
    "more_expensive_percent": pl.Float64,
    "median_index": pl.Float64,
}


class UnfitTableError(OctogenError, ValueError):
    """A price list with missing columns or wrong values."""

    persistence = Persistence.PERMANENT


def checked_price_list(price_list: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Convert the prices in a price list to numbers, or raise an error."""
    table = price_list.lazy().collect()
    if missing := [name for name in PRICE_LIST_COLUMNS if name not in table.columns]:
        raise UnfitTableError(
            f"Your price list has no column {missing[0]!r}. The required columns are "
            f"{', '.join(PRICE_LIST_COLUMNS)}."
        )
    if taken := [name for name in table.columns if name in POSITION_DESCRIPTIONS]:
        raise UnfitTableError(
            f"Your price list has a column {taken[0]!r}, which conflicts with a column that "
            "the price position adds. Rename the column in your price list."
        )
    prices = table["price"].cast(pl.Float64, strict=False)
    wrong = table["price"].filter(prices.is_null() & table["price"].is_not_null())
    if not wrong.is_empty():
        raise UnfitTableError(
            f"The price {wrong[0]!r} in your price list is not a number. Use numbers, such as "
            "129.90."
        )
    return table.with_columns(prices)


def keyed(price_list: pl.DataFrame) -> pl.DataFrame:
    """Add normalized URLs, lowercase currencies and known prices to a price list."""
    currency = pl.col("currency").cast(pl.String).str.to_lowercase()
    return price_list.with_columns(
        normalized_url(pl.col("product_url")).alias(URL),
        currency.alias(_CURRENCY),
        pl.when(currency.is_not_null()).then(known_price(pl.col("price"))).alias(LIST_PRICE),
    )


def rows_on(history: pl.LazyFrame, pages: pl.Series) -> pl.DataFrame:
    """Read the history rows for the products at the given URLs."""
    wanted = pl.LazyFrame({URL: pages}).drop_nulls().unique()
    rows = history.select(*PRODUCT_KEY, "valid_from", "valid_to", *_TRACKED, "product_url")
    return (
        rows.with_columns(normalized_url(pl.col("product_url")).alias(URL))
        .join(wanted, on=URL, how="semi")
        .drop("product_url")
        .collect(engine="streaming")
        .sort(*PRODUCT_KEY, "valid_from")
    )


def position_figures(position: pl.LazyFrame) -> dict[str, Any]:
    """Return a position's row counts by status, its percentages and its median index."""
    by_status = [(pl.col("status") == each).sum().cast(pl.Int64).alias(each) for each in STATUSES]
    of_pairs = [each for each in _SUMMARY[1:] if each.meta.output_name() != MATCHED]
    found = position.select(*by_status, *of_pairs).collect(engine="streaming").row(0, named=True)
    matched = found[MATCHED] / found["pairs"] if found["pairs"] else 1.0
    percent = {UNDERCUT: found["more_expensive_percent"] or 0.0, UNMATCHED: 100 * (1 - matched)}
    return {**found, **{name: round(each, 2) for name, each in percent.items()}}


def _position(rows: pl.DataFrame, price_list: pl.DataFrame, at: datetime) -> pl.DataFrame:
    return positions(rows, price_list.with_columns(pl.lit(at, TIME).alias(AT))).drop(AT)


def pages_at(rows: pl.DataFrame, price_list: pl.DataFrame) -> pl.DataFrame:
    """Add the competitor's product to each row, matched by `URL` and time (`AT`)."""
    there = _products(rows, price_list.select(URL, AT).unique())
    pairs = price_list.with_row_index(_ROW).join(there, on=[URL, AT], how="left")
    price, unit = pl.col("competitor_price"), pl.col("competitor_currency").str.to_lowercase()
    status = (
        pl.when(pl.col(_IS_THERE).is_null())
        .then(pl.lit("not_found"))
        .when(~pl.col(_IS_THERE))
        .then(pl.lit("gone"))
        .when(price.is_not_null() & unit.is_null())
        .then(pl.lit("no_currency"))
        .when(price.is_not_null() & (unit != pl.col(_CURRENCY)))
        .then(pl.lit("other_currency"))
        .when(~pl.col("competitor_in_stock"))
        .then(pl.lit("out_of_stock"))
        .when(price.is_null())
        .then(pl.lit("no_price"))
        .otherwise(pl.lit(MATCHED))
    )
    return (
        pairs.with_columns(status.cast(pl.Enum(STATUSES)).alias(PAGE_STATUS))
        .sort(_ROW, PAGE_STATUS, price, "competitor_uuid", nulls_last=True)
        .unique(_ROW, keep="first", maintain_order=True)
        .with_columns(pl.col(PAGE_STATUS).cast(pl.String))
    )


def positions(rows: pl.DataFrame, price_list: pl.DataFrame) -> pl.DataFrame:
    """Compute positions for a price list from `keyed`. The column `AT` contains each row's time."""
    of_sku, price = ["sku", _CURRENCY, AT], pl.col("competitor_price")
    is_matched = pl.col(PAGE_STATUS) == MATCHED
    # A URL listed twice is one competitor, counted in its first row.
    is_first = is_matched & pl.col(URL).is_first_distinct().over(of_sku)
    unit = pl.when(is_matched).then(pl.col("competitor_currency").str.to_lowercase())
    is_of_one = unit.drop_nulls().n_unique().over(of_sku) == 1
    chosen = pages_at(rows, price_list).with_columns(
        pl.when(is_first & is_of_one).then(price).alias(_MATCH)
    )
    yours, theirs, match = pl.col(LIST_PRICE), pl.when(is_matched).then(price), pl.col(_MATCH)
    competitors, median = match.count().over(of_sku), match.median().over(of_sku)
    by_price = pl.col("product_url").sort_by(_MATCH, nulls_last=True, maintain_order=True)
    # Your price's place among the sorted prices is the number of cheaper competitors.
    cheaper = match.drop_nulls().sort().search_sorted(yours, side="left").over(of_sku)
    found = chosen.select(
        *(name for name in price_list.columns if name not in (URL, _CURRENCY, LIST_PRICE)),
        pl.when(yours.is_null()).then(pl.lit(_UNPRICED)).otherwise(PAGE_STATUS).alias("status"),
        *_COMPETITOR,
        (yours - theirs).alias("difference"),
        (yours / theirs).alias("index"),
        competitors.alias("competitors"),
        match.min().over(of_sku).alias("cheapest_price"),
        pl.when(competitors > 0).then(by_price.first().over(of_sku)).alias("cheapest_url"),
        pl.when(competitors > 0, yours.is_not_null()).then(1 + cheaper).alias("rank"),
        median.alias("median_price"),
        (yours / median).alias("median_index"),
    )
    return found.cast(POSITION_SCHEMA)


def lasting_at(rows: pl.DataFrame, moments: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Join each row in `rows` with the times (`AT`) in `moments` at which the row is valid.

    The join uses the columns `by`; null matches nothing. The times are sorted and numbered, so that
    each row's times are a range of numbers. No other combinations are built.
    """
    points = moments.select(*by, AT).unique().sort(*by, AT).with_row_index(_POINT)
    at = points[AT]
    points = points.sort(AT)
    ranges = rows.select(*by, "valid_from", pl.col("valid_to").fill_null(_NEVER))
    ranges = ranges.with_row_index(_ROW).sort("valid_from")
    ranges = ranges.join_asof(
        points.rename({_POINT: _FIRST}),
        left_on="valid_from",
        right_on=AT,
        by=by,
        strategy="forward",
        check_sortedness=False,
    ).sort("valid_to")
    ranges = ranges.join_asof(
        points.rename({_POINT: _LAST}),
        left_on="valid_to",
        right_on=AT,
        by=by,
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    ).sort(_ROW)
    numbers = pl.int_ranges(_FIRST, pl.col(_LAST) + 1, dtype=pl.UInt32).alias(_POINT)
    pairs = ranges.filter(pl.col(_FIRST) <= pl.col(_LAST)).select(_ROW, numbers).explode(_POINT)
    return rows[pairs[_ROW]].with_columns(at.gather(pairs[_POINT]))


def _products(rows: pl.DataFrame, moments: pl.DataFrame) -> pl.DataFrame:
    """Return the products for each URL and time in `moments`.

    A product that was gone by that time has its last known values.
    """
    values = ["competitor_price", "competitor_currency", "competitor_in_stock"]
    # Rows from several histories overlap: a price lasts as long as any history has it.
    until = pl.col("valid_to").fill_null(pl.col("valid_from").max()).cum_max().shift()
    begun = pl.when(pl.col("valid_from") <= until).then(None).otherwise("valid_from")
    rows = rows.with_columns(
        known_price(pl.col("current_price")).alias("competitor_price"),
        pl.col("currency").alias("competitor_currency"),
        IN_STOCK.alias("competitor_in_stock"),
        pl.col("title").alias("competitor_title"),
    ).with_columns(begun.forward_fill().over(*_PAGE, *values).alias("competitor_since"))
    # If there are several histories, the row that is current or ended last is used.
    newest_last = [_GONE_AT, "valid_from", *values]
    return (
        lasting_at(_until_the_next(rows), moments, [URL])
        .with_columns(pl.when(pl.col(_GONE_AT) <= pl.col(AT)).then(_GONE_AT))
        .sort(
            newest_last,
            # The last row is kept, so descending prices prefer the lowest.
            descending=[each == "competitor_price" for each in newest_last],
            nulls_last=[each == _GONE_AT for each in newest_last],
        )
        .unique([*_PAGE, AT], keep="last", maintain_order=True)
        .select(
            URL,
            AT,
            pl.col(_GONE_AT).is_null().alias(_IS_THERE),
            pl.col("catalog_key").alias("competitor_catalog_key"),
            pl.col("uuid").alias("competitor_uuid"),
            *_COMPETITOR[2:],
        )
    )


def _until_the_next(rows: pl.DataFrame) -> pl.DataFrame:
    """Extend each row's validity period until the product's next row with the same URL begins.

    The row's original end is kept in the column `_GONE_AT`.
    """
    begins = rows.select(*_PAGE, pl.col("valid_from").alias(_NEXT)).sort(_NEXT)
    ends = rows.rename({"valid_to": _GONE_AT}).sort(_GONE_AT)
    joined = ends.join_asof(
        begins,
        left_on=_GONE_AT,
        right_on=_NEXT,
        by=_PAGE,
        strategy="forward",
        check_sortedness=False,
    )
    return joined.rename({_NEXT: "valid_to"})


def shares_preview(summary: pl.DataFrame, by: str) -> pl.DataFrame:
    return cells_table(_share_cells(row, by) for row in summary.to_dicts())


def unmatched_preview(position: pl.DataFrame) -> pl.DataFrame:
    return cells_table(map(_unmatched_cells, position.to_dicts()))


def _preview(position: pl.LazyFrame) -> pl.DataFrame:
    """Return the rows with the highest ratio of your price to the competitor's price."""
    dearest = position.sort("index", descending=True, nulls_last=True).head(_MAX_ROWS)
    return cells_table(map(_cells, dearest.collect().to_dicts()))


def _cells(row: Row) -> Cells:
    return {
        "sku": row["sku"],
        "product": product_link(row, row["competitor_title"]),
        "yours": price_text(row["price"], None if row["index"] else row["currency"]),
        "theirs": price_text(row["competitor_price"], row["competitor_currency"]),
        "index": f"{row['index']:.2f}" if row["index"] else "",
    }


def _share_cells(row: Row, by: str) -> Cells:
    shares = {word: row[f"{name}_percent"] for name, word in _WORDS.items()}
    index = row["median_index"]
    return {
        by: row[by],
        "matched": f"{row['matched']:,} of {row['pairs']:,}",
        **{name: "" if each is None else f"{each:.0f} %" for name, each in shares.items()},
        "index": "" if index is None else f"{index:.2f}",
    }


def _unmatched_cells(row: Row) -> Cells:
    end = (row["product_url"] or "").rstrip("/").rpartition("/")[2]
    return {
        "sku": row["sku"],
        "page": {"text": end, "url": row["product_url"]} if end else None,
        "status": row["status"].replace("_", " "),
    }


def position_sentence(position: pl.LazyFrame) -> str:
    """Describe in Markdown how many rows matched and how their prices compare."""
    of = position_figures(position)
    text = f"**{of['matched']:,} of {count(of['pairs'], 'pair')} matched**"
    if of["median_index"]:
        shares = [f"{word} in {of[f'{name}_percent']:.0f} %" for name, word in _WORDS.items()]
        text += f": {', '.join(shares)}; median index {of['median_index']:.2f}"
    missing = [
        f"{of[status]:,} {status.replace('_', ' ')}"
        for status in ("gone", "not_found")
        if of[status]
    ]
    return "; ".join([text, *([", ".join(missing)] if missing else [])])


def _sentence(_: Figures, position: pl.LazyFrame) -> str:
    return position_sentence(position)


def position_checks(limits: Mapping[str, float]) -> dict[str, Check]:
    """Return the checks by name. A check warns if the measured percentage exceeds the limit."""

    def judge(name: str, limit: float) -> Callable[[str, Mapping[str, Any]], Verdict]:
        def verdict(_subject: str, entries: Mapping[str, Any]) -> Verdict:
            percent = entries.get(f"octogen/{name}", 0.0)
            text = f"{percent:g} % of {pairs_of[name]}; the limit is {limit:g} %."
            return Verdict(percent <= limit, text, {name: percent})

        return verdict

    pairs_of = {
        UNDERCUT: "matched rows have a competitor price below yours",
        UNMATCHED: "price-list rows have no match",
    }
    descriptions = {
        UNDERCUT: "The percentage of matched rows with a competitor price below yours is within "
        "the limit.",
        UNMATCHED: "The percentage of price-list rows without a match is within the limit.",
    }
    return {
        name: Check(descriptions[name], judge=judge(name, limit), warns=True)
        for name, limit in limits.items()
    }


POSITION_KIND = TableKind(descriptions=POSITION_DESCRIPTIONS, sentence=_sentence, preview=_preview)
"""This table kind has no schema, because the columns depend on the price list."""
