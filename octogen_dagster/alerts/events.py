"""The events that alert rules find, computed only from each product's history.

A rule compares each row with the product's previous row. `Disappeared` also checks whether the last
row has ended. An event depends only on one product's rows, so recomputing it returns the same event
with the same `alert_id`. If a price, currency or stock value is unknown, rules use the last known
value, so a missing value never triggers an event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from octogen_dagster.alerts.references import ROW
from octogen_dagster.alerts.rules import AlertRule
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
        "price": pl.Float64(),
        "rank_before": pl.Int64(),
        "rank": pl.Int64(),
    }
)
_PRICE_LIST_COLUMNS = ("sku", "price", "rank_before", "rank")
ALERTS_DESCRIPTIONS = {
    "alert_id": "A digest of the rule, product and time. It stays the same when the event is "
    "recomputed.",
    "rule": "The rule's name.",
    "catalog_key": "The catalog the product belongs to.",
    "uuid": "The product's id in Octogen.",
    "product_url": "The product's URL at the merchant.",
    "title": "The product's title at the time of the event.",
    "brand_name": "The brand's name in the latest snapshot that contains the product.",
    "at": "The `fetched_at` of the snapshot in which the rule triggered (UTC).",
    "since": "The time (UTC) when the previous price, stock status or price-list row was first "
    "recorded. If the product disappeared, this is the time when it appeared. If the product "
    "reappeared, this is the time when it disappeared. Null for a new product.",
    "before": "The price that `after` is compared with, such as the last known price, your price "
    "or the floor price. Null if no such price is known in `currency`.",
    "after": "The price at the time of the event; null if it is unknown or the product is gone.",
    "change_percent": "The change from `before` to `after` as a percentage; null if either price "
    "is null.",
    "currency": "ISO 4217 code of the last known currency, which applies to `before` and `after`.",
    "in_stock": "True if the product was in stock at the time of the event; null if unknown or if "
    "the product is gone.",
    "sku": "Your SKU from the price list; null for a product rule.",
    "price": "Your price at the time of the event.",
    "rank_before": "The rank of your price just before the event, calculated like `rank` in a "
    "price position asset.",
    "rank": "The rank of your price at the time of the event: 1 if no competitor is cheaper.",
}


def events_of(
    rows: pl.DataFrame,
    products: pl.DataFrame,
    rules: Mapping[AlertRule, datetime],
    first_seen: pl.DataFrame,
) -> pl.DataFrame:
    """Return the events since each rule's start time, in the order of the rules.

    `rules` maps each rule to its start time. `products` is the current snapshot. A rule's `where`
    can use the columns of the history and of the current snapshot.
    """
    rows = rows.sort("uuid", "catalog_key", "valid_from")
    others = products.select(*PRODUCT_KEY, pl.exclude(rows.columns))
    known = rows.join(others, on=PRODUCT_KEY, how="left", nulls_equal=True, maintain_order="left")
    known = known.with_columns(_filled_from_history(known.schema))
    compared, events = _with_previous(rows, first_seen), [pl.DataFrame(schema=ALERTS_SCHEMA)]
    for rule, since in rules.items():
        is_wanted, identity = _matches_where(rule, known), ("catalog_key", "uuid", "at")
        if rule.again_after is None:  # with a cool-down, an event depends on all earlier events
            is_wanted &= compared[rule.at] >= since
        found = compared.filter(rule.condition(compared), is_wanted)
        found = rule.events(found.with_columns(at=rule.at), compared)
        found = without_repeats(found, rule, identity, "after").filter(pl.col("at") >= since)
        events.append(described(found, rule, identity))
    return pl.concat(events)


def without_repeats(
    events: pl.DataFrame, rule: AlertRule, identity: Sequence[str], price: str
) -> pl.DataFrame:
    """Drop events during a rule's cool-down, unless the price moved further in the same direction.

    The last column in `identity` is the time of the event.
    """
    if rule.again_after is None:
        return events
    events = events.sort(identity, maintain_order=True)
    unit = pl.col("currency").cast(pl.String).str.to_lowercase()
    is_kept, last = list[bool](), dict[tuple[Any, ...], tuple[Any, ...]]()
    for *key, at, value, currency in events.select(*identity, price, unit).iter_rows():
        then, before, before_currency = last.get((*key,), (None, None, None))
        is_further = (
            None not in (value, before, currency)
            and currency == before_currency
            and rule.direction * (value - before) > 0
        )
        is_kept.append(then is None or at - then >= rule.again_after or is_further)
        if is_kept[-1]:
            last[(*key,)] = (at, value, currency)
    return events.filter(pl.Series(is_kept, dtype=pl.Boolean))


def first_seen_of(observed: Observed, catalogs: Sequence[str | None]) -> pl.DataFrame:
    """Return each catalog's lowercase key and the time of the catalog's first snapshot."""
    keys = sorted({(catalog or "").lower() for catalog in catalogs})
    times = [
        min((at for at, each in observed.items() if each.covers(key)), default=None) for key in keys
    ]
    schema = {"catalog": pl.String(), "first_seen": TIME}
    return pl.DataFrame({"catalog": keys, "first_seen": times}, schema=schema)


def _filled_from_history(columns: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    """Return expressions that fill a missing brand or category from the history."""
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


def _matches_where(rule: AlertRule, rows: pl.DataFrame) -> pl.Series:
    if rule.where is None:
        return pl.repeat(value=True, n=len(rows), eager=True)
    try:
        found = rows.select(rule.where.alias("matches")).to_series()
    except pl.exceptions.ColumnNotFoundError as error:
        raise UnfitSnapshotError(
            f"`where` in rule {rule.name!r} uses an unknown column: {str(error).splitlines()[0]}. "
            "Use a column from the history or the current snapshot."
        ) from error
    # An expression without columns, such as a literal, has one row.
    return pl.repeat(found.item(), len(rows), eager=True) if len(found) == 1 < len(rows) else found


def _with_previous(rows: pl.DataFrame, first_seen: pl.DataFrame) -> pl.DataFrame:
    """Add the product's last known values to each row.

    The columns `..._before` contain the values before the row.
    """
    rows = rows.with_columns(is_same=PRODUCTS.is_same, is_new=~PRODUCTS.goes_on)
    rows = rows.with_columns(
        pl.col("valid_to").is_not_null().alias("is_last"),
        known_price(pl.col("current_price")).alias("after"),
        IN_STOCK.alias("in_stock"),
        _last_known("currency", "currency"),
    )
    rows = rows.with_columns(pl.col("currency").str.to_lowercase().alias("unit"))
    rows = rows.with_columns(
        pl.col("is_last") & pl.col("is_new").shift(-1).fill_null(value=True),
        _last_known("after", "after").alias("last_price"),
        _last_known("after", "unit").alias("last_price_unit"),
        _last_known("in_stock", "in_stock").alias("stock"),
        pl.col("valid_from").first().over(pl.col("is_new").cum_sum()).alias("there_since"),
    ).with_columns(
        _in_unit(pl.col("last_price")).alias("price"),
        _since("last_price", "last_price_unit").alias("price_since"),
        _since("unit").alias("currency_since"),
        _since("stock").alias("stock_since"),
    )
    previous = {
        **{f"{name}_before": name for name in ("last_price", "last_price_unit")},
        **{f"{name}_before": name for name in ("currency", "stock")},
        **{f"{name}_before_since": f"{name}_since" for name in ("price", "currency", "stock")},
        "gone_since": "valid_to",
    }
    rows = rows.with_columns(
        pl.when("is_same").then(pl.col(name).shift()).alias(new) for new, name in previous.items()
    )
    catalog = pl.col("catalog_key").fill_null("").str.to_lowercase()
    return (
        rows.with_columns(
            _in_unit(pl.col("last_price_before"), "_before").alias("price_before"),
            catalog.alias("catalog"),
        )
        .join(first_seen, on="catalog", how="left", maintain_order="left")
        .with_row_index(ROW)
    )


def _last_known(known: str, name: str) -> pl.Expr:
    """Return the value of `name` from the product's latest row in which `known` is not null."""
    # The first row of a product counts as known, so that it does not get the previous product's
    # value.
    is_known = pl.col(known).is_not_null() | ~pl.col("is_same")
    return pl.col(name).gather(pl.when(is_known).then(pl.int_range(pl.len())).forward_fill())


def _since(*names: str) -> pl.Expr:
    """Return the time of the product's last change to any of the columns in `names`."""
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in names)
    return pl.col("valid_from").first().over((~pl.col("is_same") | differs).cum_sum())


def _in_unit(price: pl.Expr, which: str = "") -> pl.Expr:
    """Return the last known price, or null if its currency differs from the row's currency."""
    return pl.when(pl.col(f"last_price_unit{which}").eq_missing(pl.col("unit"))).then(price)


def described(found: pl.DataFrame, rule: AlertRule, identity: Sequence[str]) -> pl.DataFrame:
    """Convert the events found by a rule to rows of the alerts table.

    The columns in `identity` identify an event among the rule's events.
    """
    before, after = pl.col("before").cast(pl.Float64), pl.col("after").cast(pl.Float64)
    change = pl.when(before > 0).then(100 * after / before - 100).round(2)
    ids = [_alert_id(rule.name, *row) for row in found.select(identity).iter_rows()]
    # Rows for product rules also have a `price` column, but it holds the product's price.
    is_of_price_list = "sku" in found.columns
    others = [
        pl.col(name) if is_of_price_list else pl.lit(None).alias(name)
        for name in _PRICE_LIST_COLUMNS
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
