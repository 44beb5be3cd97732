"""Events for price-list rules, computed from the product histories and the price list's history.

    price-list rows at each moment → position/pages_at → is a page below? → when it went below

A moment is a time at which a row in either history begins or ends. If a competitor's page has no
comparable price at a moment, the page keeps its previous state (below your price or not).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl

from octogen_dagster.alerts.events import ALERTS_SCHEMA, described, without_repeats
from octogen_dagster.alerts.rules import PriceListRule
from octogen_dagster.frames.columns import TIME
from octogen_dagster.frames.stored import known_price
from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.history.table import ROWS_AT_ONCE
from octogen_dagster.history.tracking import UnfitSnapshotError
from octogen_dagster.position.table import (
    AT,
    LIST_PRICE,
    MATCHED,
    NOW,
    PAGE_STATUS,
    PRICE_LIST_COLUMNS,
    URL,
    keyed,
    lasting_at,
    pages_at,
    positions,
    rows_on,
)

_UNKNOWN = ("no_price", "no_currency", "other_currency")
"""The statuses of product pages whose price cannot be compared."""
_PAGE, _KEY, _IS_BELOW = "octogen_page", "octogen_key", "octogen_below"
COMPARED = "compared_with"
_BEFORE, _RULE, _OF_PAGE = "octogen_before", "octogen_rule", ["sku", URL]
_TIMES = pl.col("valid_from", "valid_to")
_MICROSECOND = timedelta(microseconds=1)


def price_list_rows(price_list: pl.LazyFrame, rules: Iterable[PriceListRule]) -> pl.DataFrame:
    """Read a price list's history, with the columns that the rules need."""
    columns = [*PRICE_LIST_COLUMNS, *(rule.column for rule in rules)]
    found = price_list.collect_schema()
    if missing := [name for name in columns if name not in found]:
        argument = "key" if missing[0] in ("sku", "product_url") else "tracked"
        raise UnfitSnapshotError(
            f"The price list's history has no column {missing[0]!r}. Add the column to "
            f"`{argument}` in build_history_asset."
        )
    rows = price_list.select(*dict.fromkeys(columns), _TIMES).collect(engine="streaming")
    prices = [name for name in columns if name not in ("sku", "product_url", "currency")]
    return keyed(rows.with_columns(pl.col(prices).cast(pl.Float64, strict=False)))


def price_list_events(
    history: pl.LazyFrame, price_list: pl.DataFrame, rules: Mapping[PriceListRule, datetime]
) -> Iterator[pl.DataFrame]:
    """Yield the events since each rule's start time, in batches of SKUs.

    `rules` maps each rule to its start time. `price_list` is a frame from `price_list_rows`.
    """
    since = pl.lit(min(rules.values()), TIME)
    is_changed = pl.any_horizontal(since <= _TIMES).fill_null(value=False)
    changed = history.filter(is_changed).select(normalized_url(pl.col("product_url")).unique())
    touched = changed.collect(engine="streaming").to_series()
    price_list = price_list.drop_nulls(_OF_PAGE)
    skus = (
        price_list.filter(is_changed | pl.col(URL).is_in(touched.implode()))["sku"].unique().sort()
    )
    size = max(1, ROWS_AT_ONCE // 4)
    for begin in range(0, len(skus), size):
        of_skus = price_list.filter(pl.col("sku").is_in(skus.slice(begin, size).implode()))
        yield _events(rows_on(history, of_skus[URL]), of_skus, rules)


def _events(
    rows: pl.DataFrame, price_list: pl.DataFrame, rules: Mapping[PriceListRule, datetime]
) -> pl.DataFrame:
    """Return the events for the SKUs in `price_list`.

    `price_list` must contain all rows of each SKU. `rows` contains the history of the products at
    the price list's URLs.
    """
    moments, found = _moments(rows, price_list), []
    there = pages_at(rows, lasting_at(price_list, moments, _OF_PAGE))
    for rule, since in rules.items():
        became = _became(_compared(there, rule), moments, _group(rule))
        became = without_repeats(became, rule, [*_group(rule), AT], "competitor_price")
        became = became.filter(pl.col(AT) >= since)
        found.append(became.with_columns(pl.lit(rule.name).alias(_RULE)))
    ranked = _ranked(pl.concat(found), rows, price_list)
    events = [pl.DataFrame(schema=ALERTS_SCHEMA)]
    for rule in rules:
        of_rule = ranked.filter(pl.col(_RULE) == rule.name).select(
            pl.col("competitor_catalog_key").alias("catalog_key"),
            pl.col("competitor_uuid").alias("uuid"),
            "product_url",
            pl.col("competitor_title").alias("title"),
            pl.lit(None, pl.String).alias("brand_name"),
            pl.col(AT).alias("at"),
            pl.col("valid_from").alias("since"),
            pl.col(COMPARED).alias("before"),
            pl.col("competitor_price").alias("after"),
            "currency",
            pl.col("competitor_in_stock").alias("in_stock"),
            pl.col("sku").cast(pl.String),
            pl.col(LIST_PRICE).alias("price"),
            "rank_before",
            "rank",
            *(pl.col(name).cast(pl.String).alias(f"id_{name}") for name in _group(rule)),
        )
        identity = [*(f"id_{name}" for name in _group(rule)), "at"]
        events.append(described(of_rule, rule, identity))
    return pl.concat(events)


def _group(rule: PriceListRule) -> list[str]:
    """Return the columns that, together with the time, identify an event."""
    return _OF_PAGE if rule.by == "any" else ["sku"]


def _moments(rows: pl.DataFrame, price_list: pl.DataFrame) -> pl.DataFrame:
    """Return the times of changes to price-list rows or to products at the rows' URLs."""
    of_pages = price_list.select(_OF_PAGE).unique().join(rows.select(URL, _TIMES), on=URL)
    times = [
        each.select(*_OF_PAGE, pl.col(name).alias(AT))
        for each in (price_list, of_pages)
        for name in ("valid_from", "valid_to")
    ]
    return pl.concat(times).drop_nulls().unique()


def _compared(there: pl.DataFrame, rule: PriceListRule) -> pl.DataFrame:
    """Add the reference price, and a column that is true if the rule's condition is met.

    The column is null if the prices cannot be compared.
    """
    price = pl.when(pl.col("currency").is_not_null()).then(known_price(pl.col(rule.column)))
    there = there.with_columns(price.alias(COMPARED))
    return there.with_columns(rule.condition(there).alias(_IS_BELOW)).with_columns(
        pl.when(pl.col(PAGE_STATUS) == MATCHED)
        .then(_IS_BELOW)
        .when(~pl.col(PAGE_STATUS).is_in(_UNKNOWN))
        .then(pl.lit(value=False))
        .alias(_IS_BELOW)
    )


def _became(there: pl.DataFrame, moments: pl.DataFrame, group: Sequence[str]) -> pl.DataFrame:
    """Return a row for each time at which the number of undercutting pages rises from 0.

    A page undercuts if its price is below the reference price. Pages are counted for each
    combination of the `group` columns. Each row contains the cheapest page at the time.
    """
    is_below = pl.col(_IS_BELOW)
    known = there.group_by(*_OF_PAGE, AT).agg(
        pl.when(is_below.any())
        .then(pl.lit(value=True))
        .when(is_below.null_count() == 0)
        .then(pl.lit(value=False))
        .alias(_IS_BELOW),
        pl.lit(value=True).alias("is_own"),
    )
    states = moments.join(known, on=[*_OF_PAGE, AT], how="left").sort(*_OF_PAGE, AT)
    # A page that is not in the price list at a moment does not count as below.
    state = pl.when("is_own").then(is_below).otherwise(pl.lit(value=False)).forward_fill()
    states = states.with_columns(state.over(_OF_PAGE).fill_null(value=False).cast(pl.Int64))
    # The number of pages below is the running sum of changes.
    step = is_below - is_below.shift(fill_value=0).over(_OF_PAGE)
    steps = states.with_columns(step).group_by(*group, AT).agg(is_below.sum()).sort(*group, AT)
    pages = is_below.cum_sum().over(group)
    became = steps.filter(pages > 0, pages == is_below).select(*group, AT)
    below = there.filter(_IS_BELOW).join(became, on=[*group, AT], how="semi")
    below = below.sort("competitor_price", URL, "competitor_uuid")
    return below.unique([*group, AT], keep="first", maintain_order=True)


def _ranked(became: pl.DataFrame, rows: pl.DataFrame, price_list: pl.DataFrame) -> pl.DataFrame:
    """Add the rank of your price at each event (`rank`) and just before it (`rank_before`)."""
    on = ["sku", "product_url"]
    became = became.with_columns((pl.col(AT) - _MICROSECOND).alias(_BEFORE))
    asked = [became.select("sku", pl.col(at).alias(AT)) for at in (AT, _BEFORE)]
    of_skus = positions(rows, lasting_at(price_list, pl.concat(asked), ["sku"]))
    ranks = of_skus.select(*on, AT, "rank").unique([*on, AT])
    before = ranks.rename({AT: _BEFORE, "rank": "rank_before"})
    return became.join(ranks, on=[*on, AT], how="left").join(before, on=[*on, _BEFORE], how="left")


def price_list_figures(history: pl.LazyFrame, price_list: pl.DataFrame) -> dict[str, int]:
    """Count the current price-list rows, and count the incomparable rows for each reason."""
    now = price_list.filter(pl.col("valid_to").is_null())
    priced = now.filter(pl.col(LIST_PRICE).is_not_null()).drop("valid_from", "valid_to")
    current = history.filter("is_current")
    unit = pl.col("currency").cast(pl.String).str.to_lowercase()
    page = normalized_url(pl.col("product_url")).alias(URL)
    is_priced = known_price(pl.col("current_price")).is_not_null()
    theirs = current.select(page.hash().alias(_PAGE), pl.when(is_priced).then(unit).alias("theirs"))
    # Most pages have only comparable prices, so the others are found first.
    ours = priced.lazy().select(
        pl.when(pl.col(URL).is_not_null()).then(pl.col(URL).hash()).alias(_PAGE), unit.alias("ours")
    )
    other = theirs.join(ours, on=_PAGE).filter(pl.col("theirs").ne_missing(pl.col("ours")))
    pages = other.select(pl.col(_PAGE).unique().implode()).collect(engine="streaming").to_series()
    asked = priced.filter(pl.col(URL).hash().is_in(pages))
    counts = {}
    if not asked.is_empty():
        rows, now_asked = (
            rows_on(current, asked[URL]),
            asked.with_columns(pl.lit(NOW, TIME).alias(AT)),
        )
        counts = dict(pages_at(rows, now_asked)[PAGE_STATUS].value_counts().iter_rows())
    return {
        "current_rows": len(now),
        "unpriced": len(now) - len(priced),
        **{name: counts.get(name, 0) for name in _UNKNOWN},
    }
