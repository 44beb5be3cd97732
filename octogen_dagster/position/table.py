"""The price position: own prices beside those of competitors' pages, on any day of a history."""

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

OWN_COLUMNS = ("sku", "product_url", "own_price", "currency")
"""The columns that a table of own prices must have."""
MATCHED = "matched"
UNDERCUT, UNMATCHED = "undercut_percent", "unmatched_percent"
"""The names of checks, and of the figures that they judge."""
_NO_OWN_PRICE = "no_own_price"
STATUSES = (
    *(MATCHED, "no_price", "out_of_stock", "other_currency", "no_currency", "gone"),
    *("not_found", _NO_OWN_PRICE),
)
"""The statuses of a pair. Of several products on a page, that whose status is first here counts."""
POSITION_DESCRIPTIONS = {
    "status": "`matched`, or why there is no match: `no_own_price`, `not_found`, `gone`, "
    "`no_currency`, `other_currency`, `out_of_stock` or `no_price`.",
    "competitor_catalog_key": "The catalog that the competitor's product belongs to.",
    "competitor_uuid": "The identity of the competitor's product in Octogen.",
    "competitor_title": "Its title at that time.",
    "competitor_price": "Its price at that time, in `competitor_currency`.",
    "competitor_currency": "ISO 4217 code of its price.",
    "competitor_in_stock": "True if it was in stock; null if its page does not say.",
    "competitor_since": "Since when it has had this price and this stock (UTC).",
    "difference": "The own price minus the competitor's; null without a match.",
    "index": "The own price divided by the competitor's; above 1 we are dearer.",
    "competitors": "The number of the SKU's competitors: different pages that match. None count if "
    "the own currency is unknown and they are in several.",
    "cheapest_price": "The lowest price of the SKU's competitors.",
    "cheapest_url": "The page with this price.",
    "rank": "1 if no competitor is cheaper, 2 if one is, and so on; null without an own price.",
    "median_price": "The median price of the SKU's competitors.",
    "median_index": "The own price divided by this median.",
}

_TYPES = {
    **dict.fromkeys(("competitor_price", "difference", "index", "cheapest_price"), pl.Float64()),
    **dict.fromkeys(("median_price", "median_index"), pl.Float64()),
    **dict.fromkeys(("competitors", "rank"), pl.Int64()),
    "competitor_in_stock": pl.Boolean(),
    "competitor_since": TIME,
}
POSITION_SCHEMA = pl.Schema({name: _TYPES.get(name, pl.String()) for name in POSITION_DESCRIPTIONS})
"""The columns that a position adds to the own table."""

URL, AT, OWN_PRICE, PAGE_STATUS = "octogen_url", "octogen_at", "octogen_own", "octogen_status"
_ROW, _GONE_AT, _MATCH = "octogen_row", "octogen_gone_at", "octogen_match"
_IS_THERE, _CURRENCY, _NEXT = "octogen_is_there", "octogen_currency", "octogen_next"
_POINT, _FIRST, _LAST = "octogen_point", "octogen_first", "octogen_last"
_NEVER = pl.lit(2**62, pl.Int64).cast(TIME)  # after NOW, which is a moment like any other
NOW = datetime.max.replace(tzinfo=UTC)
"""Stands for the last snapshots."""
_MAX_ROWS = 5
_PAGE = [*PRODUCT_KEY, URL]
_TRACKED = ["title", "current_price", "currency", "in_stock", "is_active"]
_COMPETITOR = [name for name in POSITION_DESCRIPTIONS if name.startswith("competitor_")]
_MICROSECOND = timedelta(microseconds=1)


def price_position(
    history: pl.LazyFrame,
    own: pl.DataFrame | pl.LazyFrame,
    *,
    as_of: datetime | date | None = None,
) -> pl.DataFrame:
    """Return own prices beside those of competitors, a row for each row of the own table.

    The rows have the columns of the own table and, of the competitor's product, its price, its
    stock and since when it has had both, with `difference` and `index` (own ÷ competitor). `status`
    is `matched`, or says why there is no match: there is `no_own_price` or no currency of it, the
    page is `not_found` in the history, the product is `gone`, its price has `no_currency` or is in
    an `other_currency`, it is `out_of_stock`, or it has `no_price`. Each row also says of its SKU
    who is the cheapest competitor, the rank of its own price among them, and its index against
    their median. A price of zero is no price.

    Addresses are compared here, since Octogen does not say which of its products one is of: without
    scheme, leading `www.`, default port, trailing slash, fragment and parameters of campaigns, with
    the host in lower case, the other parameters sorted and one percent code for each character.
    Prices are compared in one currency only.

    Args:
        history: The whole history, as of `scan_history` without a time, or several of them
            concatenated. A product is there if one of them has it.
        own: A table with the columns `sku`, `product_url` (a competitor's page, of which a SKU may
            have several), `own_price`, `currency`, and any others, which are kept.
        as_of: The time of the position, or a date, which is its first moment in UTC; None for the
            last snapshots.

    Raises:
        ValueError: The own table lacks a column, or has one that the position adds, or a price that
            is no number.
    """
    table = keyed(checked_own(own))
    at = NOW if as_of is None else moment_of(as_of)
    return _position(rows_on(history, table[URL]), table, at)


def price_summary(position: pl.DataFrame, by: str | Sequence[str]) -> pl.DataFrame:
    """Return how the pairs of a price position stand, by some of its columns.

    The rows have the columns of `by`, `skus`, `pairs`, those that are `matched`, the shares of them
    in which the own price is `cheaper_percent` and `dearer_percent`, and their `median_index`.

    Args:
        position: A frame of `price_position`.
        by: Columns such as `brand`, `category` or `sku`.
    """
    columns = [by] if isinstance(by, str) else list(by)
    return position.group_by(columns).agg(*_SUMMARY).sort(columns)


def price_index(
    history: pl.LazyFrame,
    own: pl.DataFrame | pl.LazyFrame,
    *,
    days: int = 30,
    until: datetime | date | None = None,
) -> pl.DataFrame:
    """Return the price index over time: today's own prices against those of competitors then.

    There is a row for each `day` from the first snapshot to `until`; a day without a change repeats
    the values of the day before. The columns are those of `price_summary` at the end of the day in
    UTC, without `skus` and `pairs`, and `index`: the geometric mean of the indexes of the pairs
    that match.

    Args:
        history: As in `price_position`.
        own: As in `price_position`.
        days: The number of the last days.
        until: The time, or the date in UTC, at which the index ends, such as that of the last read;
            None for the last change, which is all that the rows of a history know.
    """
    table = keyed(checked_own(own))
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


_IS_MATCHED = pl.col("status") == MATCHED
_OF_INDEX = pl.col("index").drop_nulls()
_SUMMARY = [
    pl.col("sku").n_unique().cast(pl.Int64).alias("skus"),
    pl.len().cast(pl.Int64).alias("pairs"),
    _IS_MATCHED.sum().cast(pl.Int64).alias("matched"),
    ((_OF_INDEX < 1).mean() * 100).alias("cheaper_percent"),
    ((_OF_INDEX > 1).mean() * 100).alias("dearer_percent"),
    pl.col("index").median().alias("median_index"),
]
_SUMMARY_TYPES = {
    "matched": pl.Int64,
    "cheaper_percent": pl.Float64,
    "dearer_percent": pl.Float64,
    "median_index": pl.Float64,
}


class UnfitTableError(OctogenError, ValueError):
    """The table of own prices does not fit, and will not by itself."""

    persistence = Persistence.PERMANENT


def checked_own(own: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Return a table of own prices with its prices as numbers; refuse one that is none."""
    table = own.lazy().collect()
    if missing := [name for name in OWN_COLUMNS if name not in table.columns]:
        raise UnfitTableError(
            f"The table of own prices has no column {missing[0]!r}. Give it the columns "
            f"{', '.join(OWN_COLUMNS)}; others are kept."
        )
    if taken := [name for name in table.columns if name in POSITION_DESCRIPTIONS]:
        raise UnfitTableError(
            f"The table of own prices has a column {taken[0]!r}, which the price position adds. "
            "Rename it."
        )
    prices = table["own_price"].cast(pl.Float64, strict=False)
    wrong = table["own_price"].filter(prices.is_null() & table["own_price"].is_not_null())
    if not wrong.is_empty():
        raise UnfitTableError(
            f"The column own_price of the own prices has {wrong[0]!r}, which is no number. Give it "
            "numbers, such as 129.90."
        )
    return table.with_columns(prices)


def keyed(own: pl.DataFrame) -> pl.DataFrame:
    """An own table with what its rows are compared by: its pages, and its prices if known."""
    currency = pl.col("currency").cast(pl.String).str.to_lowercase()
    return own.with_columns(
        normalized_url(pl.col("product_url")).alias(URL),
        currency.alias(_CURRENCY),
        pl.when(currency.is_not_null()).then(known_price(pl.col("own_price"))).alias(OWN_PRICE),
    )


def rows_on(history: pl.LazyFrame, pages: pl.Series) -> pl.DataFrame:
    """The rows of the products on pages."""
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
    """What is told of a position: its pairs, by status, with shares and the median index."""
    by_status = [(pl.col("status") == each).sum().cast(pl.Int64).alias(each) for each in STATUSES]
    of_pairs = [each for each in _SUMMARY[1:] if each.meta.output_name() != MATCHED]
    found = position.select(*by_status, *of_pairs).collect(engine="streaming").row(0, named=True)
    matched = found[MATCHED] / found["pairs"] if found["pairs"] else 1.0
    percent = {UNDERCUT: found["dearer_percent"] or 0.0, UNMATCHED: 100 * (1 - matched)}
    return {**found, **{name: round(each, 2) for name, each in percent.items()}}


def _position(rows: pl.DataFrame, own: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The position at a time, of the rows of the products on the pages of an own table."""
    return positions(rows, own.with_columns(pl.lit(at, TIME).alias(AT))).drop(AT)


def pages_at(rows: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """The rows of a keyed own table, each with the product on its page at its moment `AT`."""
    there = _products(rows, own.select(URL, AT).unique())
    pairs = own.with_row_index(_ROW).join(there, on=[URL, AT], how="left")
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


def positions(rows: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """The position of each row of a keyed own table at its moment `AT`."""
    of_sku, price = ["sku", _CURRENCY, AT], pl.col("competitor_price")
    is_matched = pl.col(PAGE_STATUS) == MATCHED
    # A page that the own table has twice is one competitor, whose price counts in one row.
    is_first = is_matched & pl.col(URL).is_first_distinct().over(of_sku)
    unit = pl.when(is_matched).then(pl.col("competitor_currency").str.to_lowercase())
    is_of_one = unit.drop_nulls().n_unique().over(of_sku) == 1
    chosen = pages_at(rows, own).with_columns(
        pl.when(is_first & is_of_one).then(price).alias(_MATCH)
    )
    own_price, theirs, match = pl.col(OWN_PRICE), pl.when(is_matched).then(price), pl.col(_MATCH)
    competitors, median = match.count().over(of_sku), match.median().over(of_sku)
    by_price = pl.col("product_url").sort_by(_MATCH, nulls_last=True, maintain_order=True)
    # Where the own price would stand among the sorted ones is the number of cheaper ones.
    cheaper = match.drop_nulls().sort().search_sorted(own_price, side="left").over(of_sku)
    found = chosen.select(
        *(name for name in own.columns if name not in (URL, _CURRENCY, OWN_PRICE)),
        pl.when(own_price.is_null())
        .then(pl.lit(_NO_OWN_PRICE))
        .otherwise(PAGE_STATUS)
        .alias("status"),
        *_COMPETITOR,
        (own_price - theirs).alias("difference"),
        (own_price / theirs).alias("index"),
        competitors.alias("competitors"),
        match.min().over(of_sku).alias("cheapest_price"),
        pl.when(competitors > 0).then(by_price.first().over(of_sku)).alias("cheapest_url"),
        pl.when(competitors > 0, own_price.is_not_null()).then(1 + cheaper).alias("rank"),
        median.alias("median_price"),
        (own_price / median).alias("median_index"),
    )
    return found.cast(POSITION_SCHEMA)


def lasting_at(rows: pl.DataFrame, moments: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return rows at the moments `AT` of the same `by` at which they last, once for each.

    Moments that are sorted are numbered, so those of a row are a range of numbers, and no other
    pair of row and moment is ever made. A null in `by` is equal to nothing.
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
    """The products on pages at moments, as they were then or when they were seen last."""
    told = ["competitor_price", "competitor_currency", "competitor_in_stock"]
    # The rows of several histories overlap: a price lasts as long as any of them says it.
    until = pl.col("valid_to").fill_null(pl.col("valid_from").max()).cum_max().shift()
    begun = pl.when(pl.col("valid_from") <= until).then(None).otherwise("valid_from")
    rows = rows.with_columns(
        known_price(pl.col("current_price")).alias("competitor_price"),
        pl.col("currency").alias("competitor_currency"),
        IN_STOCK.alias("competitor_in_stock"),
        pl.col("title").alias("competitor_title"),
    ).with_columns(begun.forward_fill().over(*_PAGE, *told).alias("competitor_since"))
    # Of what several histories say of a product, that counts which is there, or was there last.
    newest_last = [_GONE_AT, "valid_from", *told]
    return (
        lasting_at(_until_the_next(rows), moments, [URL])
        .with_columns(pl.when(pl.col(_GONE_AT) <= pl.col(AT)).then(_GONE_AT))
        .sort(
            newest_last,
            # Descending, since the last row is kept: of equal ones that with the lowest price.
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
    """Rows that last until the next one of their product and page, and when they ended."""
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
    """Return a summary of a position by a column as cells."""
    return cells_table(_share_cells(row, by) for row in summary.to_dicts())


def unmatched_preview(position: pl.DataFrame) -> pl.DataFrame:
    """Return rows of a position without a match as cells."""
    return cells_table(map(_unmatched_cells, position.to_dicts()))


def _preview(position: pl.LazyFrame) -> pl.DataFrame:
    """The pairs in which we are dearest."""
    dearest = position.sort("index", descending=True, nulls_last=True).head(_MAX_ROWS)
    return cells_table(map(_cells, dearest.collect().to_dicts()))


def _cells(row: Row) -> Cells:
    return {
        "sku": row["sku"],
        "product": product_link(row, row["competitor_title"]),
        "own": price_text(row["own_price"], None if row["index"] else row["currency"]),
        "theirs": price_text(row["competitor_price"], row["competitor_currency"]),
        "index": f"{row['index']:.2f}" if row["index"] else "",
    }


def _share_cells(row: Row, by: str) -> Cells:
    shares = {name: row[f"{name}_percent"] for name in ("cheaper", "dearer")}
    index = row["median_index"]
    return {
        by: row[by],
        "matched": f"{row['matched']:,} of {row['pairs']:,}",
        **{name: "" if each is None else f"{each:.0f} %" for name, each in shares.items()},
        "index": "" if index is None else f"{index:.2f}",
    }


def _unmatched_cells(row: Row) -> Cells:
    """An address by the end of it, which is what tells it from others of its host."""
    end = (row["product_url"] or "").rstrip("/").rpartition("/")[2]
    return {
        "sku": row["sku"],
        "page": {"text": end, "url": row["product_url"]} if end else None,
        "status": row["status"].replace("_", " "),
    }


def position_sentence(position: pl.LazyFrame) -> str:
    """Say how many pairs of a position match and how they stand, in Markdown."""
    of = position_figures(position)
    text = f"**{of['matched']:,} of {count(of['pairs'], 'pair')} matched**"
    if of["median_index"]:
        shares = [f"{name} in {of[f'{name}_percent']:.0f} %" for name in ("cheaper", "dearer")]
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
    """The checks of a position that warn above these percentages, by their names."""

    def judge(name: str, limit: float) -> Callable[[str, Mapping[str, Any]], Verdict]:
        def verdict(_subject: str, entries: Mapping[str, Any]) -> Verdict:
            percent = entries.get(f"octogen/{name}", 0.0)
            text = f"{percent:g} % of the pairs are so; {limit:g} % are allowed."
            return Verdict(percent <= limit, text, {name: percent})

        return verdict

    said = {
        UNDERCUT: "Few pairs have a competitor below the own price, of those that match.",
        UNMATCHED: "Few pairs have no match.",
    }
    return {
        name: Check(said[name], judge=judge(name, limit), warns=True)
        for name, limit in limits.items()
    }


POSITION_KIND = TableKind(descriptions=POSITION_DESCRIPTIONS, sentence=_sentence, preview=_preview)
"""Its columns are not known beforehand: it has those of the own table, too."""
