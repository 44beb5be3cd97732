"""Alerts of own prices: when a competitor went below one, as a pure function of two histories.

    own rows at each moment → position/pages_at → is a page below? → when it became so

A moment is when a row of either history of a SKU begins or ends. What a page does not say at one,
such as a price in the own currency, is as it was before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import polars as pl

from octogen_dagster.alerts.events import ALERTS_SCHEMA, TOLERANCE, described
from octogen_dagster.alerts.rules import BelowFloor, OwnPriceRule, Undercut
from octogen_dagster.frames.columns import TIME
from octogen_dagster.frames.stored import KEY, known_price
from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.history.table import ROWS_AT_ONCE
from octogen_dagster.history.tracking import UnfitSnapshotError
from octogen_dagster.position.table import (
    AT,
    MATCHED,
    NOW,
    OWN_COLUMNS,
    OWN_PRICE,
    PAGE_STATUS,
    URL,
    keyed,
    pages_at,
    positions,
    rows_on,
)

_UNKNOWN = ("no_price", "no_currency", "other_currency")
"""The statuses of a page that say nothing of its price in the own currency."""
_PAGE, _KEY, _IS_BELOW, _COMPARED = "octogen_page", "octogen_key", "octogen_below", "octogen_with"
_TIMES = pl.col("valid_from", "valid_to")


def own_rows(own: pl.LazyFrame, rules: Iterable[OwnPriceRule]) -> pl.DataFrame:
    """The rows of a history of own prices that rules look at."""
    columns = [*OWN_COLUMNS, *(rule.column for rule in rules if isinstance(rule, BelowFloor))]
    found = own.collect_schema()
    if missing := [name for name in columns if name not in found]:
        raise UnfitSnapshotError(
            f"The history of own prices has no column {missing[0]!r}. Add it to `tracked` of "
            "build_history_asset, or product_url to its `key`."
        )
    rows = own.select(*dict.fromkeys(columns), _TIMES).collect(engine="streaming")
    prices = [name for name in columns if name not in ("sku", "product_url", "currency")]
    return keyed(rows.with_columns(pl.col(prices).cast(pl.Float64, strict=False)))


def own_events(
    history: pl.LazyFrame, own: pl.DataFrame, rules: Mapping[OwnPriceRule, datetime]
) -> Iterator[pl.DataFrame]:
    """Yield the events of rules, each from a time on, of the SKUs that changed since the first.

    `own` are the rows of `own_rows`. A page is where its product was seen last.
    """
    since = min(rules.values())
    changed = (
        pl.any_horizontal(pl.lit(since, TIME) <= _TIMES).fill_null(value=False).alias("changed")
    )
    paged = history.with_columns(normalized_url(pl.col("product_url")).alias(URL))
    products = paged.with_columns(_page()).select(KEY.alias(_KEY), _PAGE, changed)
    found = products.drop_nulls().unique().collect(engine="streaming")
    own = own.with_columns(_page(), changed)
    touched = found.filter("changed")[_PAGE].unique().implode()
    skus = own.filter(pl.col("changed") | pl.col(_PAGE).is_in(touched))["sku"].unique().sort()
    own = own.drop("changed")
    size = max(1, ROWS_AT_ONCE // 4)
    for begin in range(0, len(skus), size):
        of_skus = own.filter(pl.col("sku").is_in(skus.slice(begin, size).implode()))
        keys = found.filter(pl.col(_PAGE).is_in(of_skus[_PAGE].implode()))[_KEY].unique()
        of_products = history.filter(KEY.is_in(keys.implode()))
        rows = rows_on(of_products, of_skus[URL])
        yield _events(rows, of_skus.drop(_PAGE), rules)


def _events(
    rows: pl.DataFrame, own: pl.DataFrame, rules: Mapping[OwnPriceRule, datetime]
) -> pl.DataFrame:
    """The events of rules, of all rows of some SKUs and of the products on their pages."""
    pages = own.select("sku", URL).unique()
    moments = _moments(rows, own, pages)
    own = own.join(moments, on="sku").filter(
        pl.col("valid_from") <= pl.col(AT),
        (pl.col("valid_to") > pl.col(AT)).fill_null(value=True),
    )
    there, events = pages_at(rows, own), [pl.DataFrame(schema=ALERTS_SCHEMA)]
    for rule, since in rules.items():
        found = _became(_compared(there, rule), pages, moments, rule).filter(pl.col(AT) >= since)
        ranked = _ranked(found, rows, own, moments)
        of_page = ["sku", URL] if rule.by == "any" else ["sku"]
        events.append(
            described(
                ranked.select(
                    pl.col("competitor_catalog_key").alias("catalog_key"),
                    pl.col("competitor_uuid").alias("uuid"),
                    "product_url",
                    pl.col("competitor_title").alias("title"),
                    pl.lit(None, pl.String).alias("brand_name"),
                    pl.col(AT).alias("at"),
                    pl.col("valid_from").alias("since"),
                    pl.col(_COMPARED).alias("before"),
                    pl.col("competitor_price").alias("after"),
                    "currency",
                    pl.col("competitor_in_stock").alias("in_stock"),
                    pl.col("sku").cast(pl.String),
                    pl.col(OWN_PRICE).alias("own_price"),
                    "rank_before",
                    "rank",
                    *(pl.col(name).cast(pl.String).alias(f"id_{name}") for name in of_page),
                ),
                rule,
                [*(f"id_{name}" for name in of_page), "at"],
            )
        )
    return pl.concat(events)


def _moments(rows: pl.DataFrame, own: pl.DataFrame, pages: pl.DataFrame) -> pl.DataFrame:
    """The moments of each SKU."""
    of_pages = pages.join(rows.select(URL, "valid_from", "valid_to"), on=URL)
    times = [
        each.select("sku", pl.col(name).alias(AT))
        for each in (own, of_pages)
        for name in ("valid_from", "valid_to")
    ]
    return pl.concat(times).drop_nulls().unique()


def _compared(there: pl.DataFrame, rule: OwnPriceRule) -> pl.DataFrame:
    """Add what a rule compares with, and whether a page is below it; null if that is unknown."""
    is_known = pl.col("currency").is_not_null()
    given = pl.col(OWN_PRICE)
    if isinstance(rule, BelowFloor):
        given = pl.when(is_known).then(known_price(pl.col(rule.column)))
    percent = rule.percent if isinstance(rule, Undercut) else 0.0
    price, value = pl.col("competitor_price"), pl.col(_COMPARED)
    below = (price < value * (1 - TOLERANCE)) & (price <= value * (1 - percent / 100 + TOLERANCE))
    is_below = (
        pl.when(pl.col(PAGE_STATUS) == MATCHED)
        .then(below)
        .when(~pl.col(PAGE_STATUS).is_in(_UNKNOWN))
        .then(pl.lit(value=False))
    )
    return there.with_columns(given.alias(_COMPARED)).with_columns(is_below.alias(_IS_BELOW))


def _became(
    there: pl.DataFrame, pages: pl.DataFrame, moments: pl.DataFrame, rule: OwnPriceRule
) -> pl.DataFrame:
    """The pages and moments at which a rule became true, of each SKU by the lowest page."""
    of_page, is_below = ["sku", URL], pl.col(_IS_BELOW)
    known = there.group_by(*of_page, AT).agg(
        pl.when(is_below.any())
        .then(pl.lit(value=True))
        .when(is_below.null_count() == 0)
        .then(pl.lit(value=False))
        .alias(_IS_BELOW),
        pl.lit(value=True).alias("is_own"),
    )
    # A page that the own table does not have at a moment is not below it.
    grid = pages.join(moments, on="sku").join(
        known, on=[*of_page, AT], how="left", nulls_equal=True
    )
    grid = grid.with_columns(pl.when("is_own").then(is_below).otherwise(pl.lit(value=False)))
    states = grid.sort(*of_page, AT).with_columns(
        is_below.forward_fill().over(of_page).fill_null(value=False)
    )
    group = of_page if rule.by == "any" else ["sku"]
    if rule.by != "any":
        states = states.group_by("sku", AT).agg(is_below.any()).sort("sku", AT)
    before = is_below.shift().over(group).fill_null(value=False)
    became = states.filter(is_below & ~before).select(*group, AT)
    lowest = there.filter(_IS_BELOW).sort("competitor_price", URL, "competitor_uuid")
    return became.join(
        lowest.unique([*group, AT], keep="first", maintain_order=True), on=[*group, AT]
    )


def _ranked(
    found: pl.DataFrame, rows: pl.DataFrame, own: pl.DataFrame, moments: pl.DataFrame
) -> pl.DataFrame:
    """Add the rank of the own price at each event, and at the moment before."""
    before = moments.sort("sku", AT).with_columns(pl.col(AT).shift().over("sku").alias("before"))
    found = found.join(before, on=["sku", AT], how="left")
    asked = pl.concat([found.select("sku", AT), found.select("sku", pl.col("before").alias(AT))])
    ranks = positions(rows, own.join(asked.unique(), on=["sku", AT], how="semi"))
    ranks = ranks.select("sku", "product_url", AT, "rank").unique(["sku", "product_url", AT])
    on = ["sku", "product_url"]
    return found.join(ranks, on=[*on, AT], how="left").join(
        ranks.rename({AT: "before", "rank": "rank_before"}), on=[*on, "before"], how="left"
    )


def _page() -> pl.Expr:
    """A number for a page, which is the same within a process."""
    return pl.when(pl.col(URL).is_not_null()).then(pl.col(URL).hash()).alias(_PAGE)


def own_figures(history: pl.LazyFrame, own: pl.DataFrame) -> dict[str, int]:
    """Count the current own prices, and those of which no event can be told and why."""
    now = own.filter(pl.col("valid_to").is_null())
    priced = now.filter(pl.col(OWN_PRICE).is_not_null()).drop("valid_from", "valid_to")
    current = history.filter("is_current")
    unit = pl.col("currency").cast(pl.String).str.to_lowercase()
    page = normalized_url(pl.col("product_url")).alias(URL)
    theirs = current.select(page, unit, known_price(pl.col("current_price")).alias("theirs"))
    # A page on which each price can be compared has none of these statuses, and most are so.
    other = theirs.join(priced.lazy().select(URL, unit.alias("ours")), on=URL).filter(
        pl.col("theirs").is_null() | pl.col("currency").ne_missing(pl.col("ours"))
    )
    pages = other.select(pl.col(URL).unique()).collect(engine="streaming").to_series()
    asked = priced.filter(pl.col(URL).is_in(pages.implode()))
    there = pages_at(rows_on(current, pages), asked.with_columns(pl.lit(NOW, TIME).alias(AT)))
    counts = dict(there[PAGE_STATUS].value_counts().iter_rows())
    return {
        "current_products": len(now),
        "no_own_price": len(now) - len(priced),
        **{name: counts.get(name, 0) for name in _UNKNOWN},
    }
