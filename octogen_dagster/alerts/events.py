"""Alerts: the moments at which a rule became true of a product, as a pure function of its history.

A rule is looked at where a product's row begins, and compared with the row before, or where its
last row ends. So an event follows from the rows of one product alone, and recomputing gives it
again, with the same `alert_id`. What a row does not say is as the row before has it: a price, a
currency or a stock that is unknown is no change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from octogen_dagster.alerts.rules import (
    AlertRule,
    Appeared,
    BackInStock,
    CurrencyChanged,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
)
from octogen_dagster.frames.columns import TIME
from octogen_dagster.frames.stored import CATEGORY_SEPARATOR, IN_STOCK, PRODUCT_KEY, known_price
from octogen_dagster.history.observed import Observed
from octogen_dagster.history.tracking import PRODUCTS, UnfitSnapshotError

ALERTS_SCHEMA = pl.Schema(
    {
        "alert_id": pl.String(),
        "rule": pl.String(),
        "catalog_key": pl.String(),
        "uuid": pl.String(),
        "product_url": pl.String(),
        "title": pl.String(),
        "brand_name": pl.String(),
        "at": TIME,
        "since": TIME,
        "before": pl.Float64(),
        "after": pl.Float64(),
        "change_percent": pl.Float64(),
        "currency": pl.String(),
        "in_stock": pl.Boolean(),
        "sku": pl.String(),
        "own_price": pl.Float64(),
        "rank_before": pl.Int64(),
        "rank": pl.Int64(),
    }
)
_OF_OWN_PRICES = ("sku", "own_price", "rank_before", "rank")
ALERTS_DESCRIPTIONS = {
    "alert_id": "A digest of rule, product and time, which is the same in every recomputation.",
    "rule": "The name of the rule that became true.",
    "catalog_key": "The catalog the product belongs to.",
    "uuid": "The product's identity in Octogen.",
    "product_url": "The product's page at the merchant.",
    "title": "The title at that time.",
    "brand_name": "The brand's name in the last snapshot with the product.",
    "at": "The `fetched_at` of the snapshot in which the rule was true (UTC).",
    "since": "Since when it had been as `before`: the price, the stock, the place in the catalog "
    "or the own row (UTC); null for a product that is new.",
    "before": "The price that it is compared with, such as the last known one, the own one or the "
    "floor; null if there is none in the same currency.",
    "after": "The price at that time; null if it is unknown, or if the product is gone.",
    "change_percent": "The change from `before` to `after` in percent; null without both.",
    "currency": "ISO 4217 code of both prices: the last known one.",
    "in_stock": "True if the product was in stock at that time; null if unknown, or if it is gone.",
    "sku": "The own article; null for a rule that is not of own prices.",
    "own_price": "Its own price at that time.",
    "rank_before": "The rank of the own price at the last change before, as in a price position.",
    "rank": "The rank of the own price at that time: 1 if no competitor is cheaper.",
}

TOLERANCE = 1e-9
"""The share by which a price may miss a threshold, since a price is no exact number."""
_BEFORE = "octogen_before_"
_ROW = "octogen_row"


def events_of(
    rows: pl.DataFrame,
    products: pl.DataFrame,
    rules: Mapping[AlertRule, datetime],
    first_seen: pl.DataFrame,
) -> pl.DataFrame:
    """Return the events of rules, each from a time on, in the order of their rules.

    `products` are the current snapshot, which has columns that the history does not have.
    """
    rows = rows.sort("uuid", "catalog_key", "valid_from")
    others = products.select(*PRODUCT_KEY, pl.exclude(rows.columns))
    known = rows.join(others, on=PRODUCT_KEY, how="left", nulls_equal=True, maintain_order="left")
    known = known.with_columns(_seen(known.schema))
    compared, events = _with_before(rows), [pl.DataFrame(schema=ALERTS_SCHEMA)]
    for rule, since in rules.items():
        is_meant = _is_meant(rule, known).alias("is_meant")
        found = _FINDERS[type(rule)](compared.with_columns(is_meant), rule, since, first_seen)
        events.append(described(found, rule, ("catalog_key", "uuid", "at")))
    return pl.concat(events)


def first_seen_of(observed: Observed, catalogs: Sequence[str | None]) -> pl.DataFrame:
    """Return when each catalog was in a snapshot for the first time, by its key in lower case."""
    keys = sorted({(catalog or "").lower() for catalog in catalogs})
    times = [
        min((at for at, each in observed.items() if each.covers(key)), default=None) for key in keys
    ]
    schema = {"catalog": pl.String(), "first_seen": TIME}
    return pl.DataFrame({"catalog": keys, "first_seen": times}, schema=schema)


def _seen(columns: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    """The brand and the category of products that are gone, as their history has them."""
    brand = pl.col("brand_name")
    if isinstance(columns.get("brand"), pl.Struct):
        brand = pl.struct(brand.alias("name"))
    levels = pl.col("category").str.split(CATEGORY_SEPARATOR)
    return [
        pl.when(pl.col(name).is_null())
        .then(seen.cast(columns[name], strict=False))
        .otherwise(name)
        .alias(name)
        for name, seen in {"brand": brand, "category_path": levels}.items()
        if name in columns
    ]


def _is_meant(rule: AlertRule, rows: pl.DataFrame) -> pl.Series:
    """The rows of the products that a rule is about."""
    if rule.where is None:
        return pl.repeat(value=True, n=len(rows), eager=True)
    try:
        found = rows.select(rule.where.alias("is_meant")).to_series()
    except pl.exceptions.ColumnNotFoundError as error:
        raise UnfitSnapshotError(
            f"The rule {rule.name!r} asks for a column that is neither in the history nor in the "
            f"current snapshot: {str(error).splitlines()[0]}. Correct its `where`."
        ) from error
    # An expression without columns, such as a literal, has one row.
    return pl.repeat(found.item(), len(rows), eager=True) if len(found) == 1 < len(rows) else found


def _with_before(rows: pl.DataFrame) -> pl.DataFrame:
    """Add to each row what is known of it, and the same of the product's row before."""
    rows = rows.with_columns(is_same=PRODUCTS.is_same, goes_on=PRODUCTS.goes_on)
    rows = rows.with_columns(
        pl.col("valid_to").is_not_null().alias("is_last"),
        known_price(pl.col("current_price")).alias("after"),
        IN_STOCK.alias("in_stock"),
        _last_known("currency", "currency"),
    )
    rows = rows.with_columns(pl.col("currency").str.to_lowercase().alias("unit"))
    rows = rows.with_columns(
        pl.col("is_last") & ~pl.col("goes_on").shift(-1).fill_null(value=False),
        _last_known("after", "after").alias("price"),
        _last_known("after", "unit").alias("price_unit"),
        _last_known("in_stock", "in_stock").alias("stock"),
        pl.col("valid_from").first().over((~pl.col("goes_on")).cum_sum()).alias("there_since"),
    ).with_columns(
        _since("price", "price_unit").alias("price_since"),
        _since("unit").alias("unit_since"),
        _since("stock").alias("stock_since"),
    )
    values = ("price", "price_unit", "unit", "stock")
    names = (*values, "price_since", "unit_since", "stock_since", "valid_to")
    before = [pl.when("is_same").then(pl.col(name).shift()).alias(_BEFORE + name) for name in names]
    return rows.with_columns(before).with_row_index(_ROW)


def _last_known(known: str, name: str) -> pl.Expr:
    """The value of a column in the product's last row up to this one where another is known."""
    # The first row of a product counts as known, or it would have the value of the one before.
    is_known = pl.col(known).is_not_null() | ~pl.col("is_same")
    return pl.col(name).gather(pl.when(is_known).then(pl.int_range(pl.len())).forward_fill())


def _since(*names: str) -> pl.Expr:
    """Since when a product has had the same values."""
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in names)
    return pl.col("valid_from").first().over((~pl.col("is_same") | differs).cum_sum())


def _before(name: str) -> pl.Expr:
    return pl.col(_BEFORE + name)


def _begun(rows: pl.DataFrame, since: datetime) -> pl.DataFrame:
    return rows.filter("is_meant", pl.col("valid_from") >= since).with_columns(at="valid_from")


def _found(rows: pl.DataFrame, since: pl.Expr, before: pl.Expr) -> pl.DataFrame:
    return rows.with_columns(since=since, before=before)


def _in_unit(price: pl.Expr, unit: pl.Expr) -> pl.Expr:
    """A price that is in the currency of the row."""
    return pl.when(unit.eq_missing(pl.col("unit"))).then(price)


def _prices(
    rows: pl.DataFrame, rule: AlertRule, since: datetime, _first_seen: pl.DataFrame
) -> pl.DataFrame:
    assert isinstance(rule, PriceDropped | PriceRose)
    sign = -1 if isinstance(rule, PriceDropped) else 1
    before = _in_unit(_before("price"), _before("price_unit"))
    moved = _begun(rows, since).filter(sign * pl.col("after") > sign * before)
    moved = _with_reference(moved, rows, rule)
    reference = pl.col("reference")

    def is_true_of(price: pl.Expr) -> pl.Expr:
        """True if a price is beyond the thresholds, seen from the reference."""
        slack = reference.abs() * TOLERANCE
        by = sign * (price - reference)
        beyond = by > slack
        if rule.percent is not None:
            beyond &= by >= reference * rule.percent / 100 - slack
        if rule.amount is not None:
            beyond &= by >= rule.amount - slack
        return beyond

    # It became true: it was not true of the price before, seen from the same reference.
    became = is_true_of(pl.col("after")) & ~is_true_of(_before("price"))
    return _found(moved.filter(became), pl.col("reference_since"), reference)


def _with_reference(
    moved: pl.DataFrame, rows: pl.DataFrame, rule: PriceDropped | PriceRose
) -> pl.DataFrame:
    """Add the price that each is compared with, and since when that was the price."""
    if rule.against == "before":
        return moved.with_columns(
            reference=_before("price"), reference_since=_before("price_since")
        )
    begin = pl.col("at") - timedelta(days=rule.days)
    lasted = rows.select(
        *PRODUCT_KEY,
        pl.col("price").alias("reference"),
        pl.col("price_unit").alias("then_unit"),
        pl.col("price_since").alias("reference_since"),
        "valid_from",
        pl.col("valid_to").alias("until"),
    )
    window = (
        moved.select(_ROW, *PRODUCT_KEY, "unit", "at")
        .join(lasted, on=PRODUCT_KEY, nulls_equal=True)
        .filter(
            pl.col("valid_from") < pl.col("at"),
            pl.col("until") > begin,
            pl.col("then_unit").eq_missing(pl.col("unit")),
            pl.col("reference").is_not_null(),
        )
    )
    if rule.against == "lowest":
        window = window.sort(
            "reference", "reference_since", descending=[False, True], maintain_order=True
        )
    else:
        spans = pl.min_horizontal("until", "at") - pl.max_horizontal("valid_from", begin)
        window = (
            window.with_columns(span=spans.dt.total_microseconds(), reference_since=begin)
            .sort("reference", maintain_order=True)
            # Each price counts for as long as it lasted: the median is the first one, from the
            # lowest on, at which the sum reaches half of the time.
            .filter(2 * pl.col("span").cum_sum().over(_ROW) >= pl.col("span").sum().over(_ROW))
        )
    references = window.unique(_ROW, keep="first", maintain_order=True)
    return moved.join(references.select(_ROW, "reference", "reference_since"), on=_ROW)


def _stock(
    rows: pl.DataFrame, rule: AlertRule, since: datetime, _first_seen: pl.DataFrame
) -> pl.DataFrame:
    was, stock = _before("stock"), pl.col("stock")
    became = stock & ~was if isinstance(rule, BackInStock) else ~stock & was
    price = _in_unit(_before("price"), _before("price_unit"))
    return _found(_begun(rows, since).filter(became), _before("stock_since"), price)


def _appeared(
    rows: pl.DataFrame, _rule: AlertRule, since: datetime, first_seen: pl.DataFrame
) -> pl.DataFrame:
    catalog = pl.col("catalog_key").fill_null("").str.to_lowercase()
    begun = _begun(rows, since).filter(~pl.col("goes_on"))
    begun = begun.with_columns(catalog.alias("catalog")).join(first_seen, on="catalog")
    price = _in_unit(_before("price"), _before("price_unit"))
    return _found(begun.filter(pl.col("at") > pl.col("first_seen")), _before("valid_to"), price)


def _disappeared(
    rows: pl.DataFrame, _rule: AlertRule, since: datetime, _first_seen: pl.DataFrame
) -> pl.DataFrame:
    ended = rows.filter("is_meant", "is_last", pl.col("valid_to") >= since)
    price = _in_unit(pl.col("price"), pl.col("price_unit"))
    found = _found(ended.with_columns(at="valid_to"), pl.col("there_since"), price)
    return found.with_columns(after=pl.lit(None, pl.Float64), in_stock=pl.lit(None, pl.Boolean))


def _currencies(
    rows: pl.DataFrame, _rule: AlertRule, since: datetime, _first_seen: pl.DataFrame
) -> pl.DataFrame:
    changed = _begun(rows, since).filter(pl.col("unit") != _before("unit"))
    return _found(changed, _before("unit_since"), pl.lit(None, pl.Float64))


_Finder = Callable[[pl.DataFrame, AlertRule, datetime, pl.DataFrame], pl.DataFrame]
_FINDERS: Mapping[type[AlertRule], _Finder] = {
    PriceDropped: _prices,
    PriceRose: _prices,
    BackInStock: _stock,
    OutOfStock: _stock,
    Appeared: _appeared,
    Disappeared: _disappeared,
    CurrencyChanged: _currencies,
}


def described(found: pl.DataFrame, rule: AlertRule, identity: Sequence[str]) -> pl.DataFrame:
    """The columns of the table for events that were found; `identity` tells those of a rule apart.

    The last column of it is the time.
    """
    before, after = pl.col("before"), pl.col("after")
    change = pl.when(before > 0).then(100 * after / before - 100).round(2)
    ids = [_alert_id(rule.name, *row) for row in found.select(identity).iter_rows()]
    others = [
        (pl.col(name) if name in found.columns else pl.lit(None).alias(name))
        for name in _OF_OWN_PRICES
    ]
    return found.select(
        pl.Series("alert_id", ids, pl.String),
        pl.lit(rule.name).alias("rule"),
        "catalog_key",
        "uuid",
        "product_url",
        "title",
        "brand_name",
        "at",
        "since",
        "before",
        "after",
        change.alias("change_percent"),
        "currency",
        "in_stock",
        *others,
    ).cast(ALERTS_SCHEMA)


def _alert_id(rule: str, *identity: Any) -> str:
    *names, at = identity
    text = "\x1f".join((rule, *(name or "" for name in names), at.isoformat()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
