"""The sentence that a materialization begins with, and lines of the snapshots before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from octogen_dagster.api.spending import usd
from octogen_dagster.frames.alerts import ALERTS_SCHEMA
from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.frames.catalogs import CATALOGS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_SCHEMA, WATCHED
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.frames.history import HISTORY_SCHEMA
from octogen_dagster.frames.previews import markdown_table, price
from octogen_dagster.printable import count, sparkline

MEDIANS = ("price_p50_", "median_price_")
"""The beginnings of the names of median prices, of a snapshot and of a history."""
NO_CURRENCY = "no_currency"
_MAX_EARLIER = 11
"""The snapshots before that a line shows: a longer one would not fit beside its numbers."""
_STATUSES = ("found", "gone", "mismatched", "failed")

Metrics = Mapping[str, Any]
"""The metrics of a snapshot by name, and its number of `rows`."""


def summary(snapshot: pl.LazyFrame, metrics: Metrics) -> str:
    """The sentence about a snapshot, in Markdown; that of its source if it has one."""
    if "summary" in metrics:
        return str(metrics["summary"])
    schema = snapshot.collect_schema()
    for known, sentence in _SENTENCES:
        if schema == known:
            return sentence(metrics, snapshot)
    return f"**{count(metrics['rows'], 'row')}**"


def _products(metrics: Metrics, _: pl.LazyFrame) -> str:
    text = f"**{count(metrics['rows'], 'product')}**"
    if metrics.get("truncated"):
        text += ", cut off at max_products"
    if metrics.get("first_snapshot"):
        text += ", the first snapshot"
    elif "appeared" in metrics:
        moved = count(metrics["price_changed"], "price")
        text += f", {metrics['appeared']:,} new, {metrics['disappeared']:,} gone, {moved} moved"
    return "; ".join([text, *_median(metrics), *_cost(metrics)])


def _details(metrics: Metrics, _: pl.LazyFrame) -> str:
    statuses = [f"{metrics[name]:,} {name}" for name in _STATUSES if metrics.get(name)]
    text = f"**{count(metrics['rows'], 'product')}**: {', '.join(statuses) or 'none looked up'}"
    carried = [f"{metrics['carried_over']:,} carried over"] if metrics.get("carried_over") else []
    return "; ".join([text, *carried, *_cost(metrics)])


def _history(metrics: Metrics, _: pl.LazyFrame) -> str:
    if "current_products" not in metrics:
        return f"**{count(metrics['rows'], 'row')}**"
    text = (
        f"**{count(metrics['current_products'], 'product')}** in "
        f"{count(metrics['snapshots'], 'snapshot')}; the last one: {metrics['appeared']:,} new, "
        f"{metrics['disappeared']:,} gone, {metrics['changed']:,} changed"
    )
    if metrics["reappeared"]:
        text += f", {metrics['reappeared']:,} back"
    return "; ".join([text, *_median(metrics)])


def _changes(_: Metrics, snapshot: pl.LazyFrame) -> str:
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


def _alerts(metrics: Metrics, _: pl.LazyFrame) -> str:
    if "events_appeared" not in metrics:
        return f"**{count(metrics['rows'], 'event')}**"
    text = f"**{count(metrics['events_appeared'], 'new event')}**"
    if metrics["events_vanished"]:
        text += f", {metrics['events_vanished']:,} vanished"
    return f"{text}; {count(metrics['current_products'], 'product')}"


def _brands(_: Metrics, snapshot: pl.LazyFrame) -> str:
    counted = snapshot.select(
        pl.col("brand").drop_nulls().n_unique(),
        pl.col("currency").drop_nulls().n_unique(),
        pl.col("products").sum(),
    )
    brands, currencies, products = counted.collect().row(0)
    text = f"**{count(brands, 'brand')}**"
    if currencies:
        text += f" in {count(currencies, 'currency', 'currencies')}"
    return f"{text}, with {count(products, 'product')}"


def _catalogs(metrics: Metrics, snapshot: pl.LazyFrame) -> str:
    text = f"**{count(metrics['rows'], 'catalog')}**"
    products = snapshot.select("product_count").collect().to_series()
    return text if products.has_nulls() else f"{text} with {count(int(products.sum()), 'product')}"


def _median(metrics: Metrics) -> list[str]:
    """The median price of the currency with the most products."""
    for name, amount in metrics.items():
        for prefix in MEDIANS:
            if name.startswith(prefix):
                return [f"median {price(amount, currency_of(name, prefix))}"]
    return []


def currency_of(name: str, prefix: str) -> str:
    """The currency in the name of a metric; empty for products without one."""
    code = name.removeprefix(prefix)
    return "" if code == NO_CURRENCY else code.upper()


def _cost(metrics: Metrics) -> list[str]:
    return [usd(metrics["cost_usd"])] if "cost_usd" in metrics else []


_SENTENCES: tuple[tuple[pl.Schema, Callable[[Metrics, pl.LazyFrame], str]], ...] = (
    (PRODUCT_SCHEMA, _products),
    (DETAIL_SCHEMA, _details),
    (HISTORY_SCHEMA, _history),
    (ALERTS_SCHEMA, _alerts),
    (CHANGES_SCHEMA, _changes),
    (BRANDS_SCHEMA, _brands),
    (CATALOGS_SCHEMA, _catalogs),
)


def trend(schema: Mapping[str, pl.DataType], metrics: Metrics, earlier: Sequence[Metrics]) -> str:
    """Lines of the number of rows, or of products, and of the median price, as a Markdown table.

    `earlier` are the metrics of the snapshots before, the oldest first. Without any it is empty.
    """
    shown = earlier[-_MAX_EARLIER:]
    lines = {"rows": "products" if schema in (PRODUCT_SCHEMA, DETAIL_SCHEMA) else "rows"}
    if "current_products" in metrics:
        lines = {"current_products": "products"}
    medians = (name for name in metrics if name.startswith(MEDIANS))
    for name in list(medians)[:1]:
        prefix = next(prefix for prefix in MEDIANS if name.startswith(prefix))
        lines[name] = f"median {currency_of(name, prefix)}".rstrip()
    rows = []
    for name, title in lines.items():
        numbers = [each[name] for each in (*shown, metrics) if name in each]
        if len(numbers) > 1:
            ends = [_short(number) for number in (numbers[0], numbers[-1])]
            rows.append((title, ends[0], sparkline(numbers), ends[1]))
    if not rows:
        return ""
    header = [count(len(shown) + 1, "snapshot"), "first", " ", "last"]
    return markdown_table(pl.DataFrame(rows, schema=header, orient="row"))


def _short(number: float) -> str:
    """A number of few characters, such as `40.99` and `1,354`."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.{0 if number >= 100 else 2}f}"


def prices(metrics: Metrics) -> str:
    """Lines of the distribution of prices in each currency, as a Markdown table."""
    rows = []
    for name, line in (metrics.get("price_lines") or {}).items():
        of = metrics["price_quantiles"][name]
        currency = "none" if name == NO_CURRENCY else name.upper()
        quantiles = [_short(of[share]) for share in ("p05", "p50", "p95")]
        rows.append((currency, quantiles[0], line, *quantiles[1:]))
    if not rows:
        return ""
    header = [" ", "5 %", "  ", "median", "95 %"]  # blank ones, which differ in their names
    return markdown_table(pl.DataFrame(rows, schema=header, orient="row"))
