"""Formats the cells of preview tables and the figures in summary sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from octogen_dagster.printable import spent_text

_MAX_ROWS = 5
_MAX_COLUMNS = 4
_MAX_WORD = 24
_LONG_WORD = re.compile(rf"\S{{{_MAX_WORD + 1},}}")
_NESTED = (pl.List, pl.Array, pl.Object, pl.Binary)
MEDIAN = "median_price_"
MEDIANS = ("price_p50_", MEDIAN)
"""The prefixes of metrics for median prices, first in snapshots, then in histories."""
NO_CURRENCY = "no_currency"
MAX_CURRENCIES = 5
"""Maximum number of currencies for which prices are shown. The most common ones are shown."""

Figures = Mapping[str, Any]
"""A table's metrics by name, including `rows`."""
Row = Mapping[str, Any]
Cells = dict[str, Any]
"""One row's cells, keyed by column header.

A cell is a string, a number, a time, or a link (a dict with `text` and `url`).
"""


def first_rows(
    cells: Callable[[Row], Cells], columns: Sequence[str], rows: int = _MAX_ROWS
) -> Callable[[pl.LazyFrame], pl.DataFrame]:
    """Return a function that builds a preview: a table's first rows, formatted by `cells`."""
    return lambda table: cells_table(
        map(cells, table.head(rows).select(columns).collect().to_dicts())
    )


def first_columns(table: pl.LazyFrame) -> pl.DataFrame:
    """Return the first rows of any table, with a few columns that suit a preview."""
    fitting = [name for name, dtype in table.collect_schema().items() if _fits(dtype)]
    rows = table.select(fitting).head(_MAX_ROWS).collect()
    filled = [column.name for column in rows if column.null_count() < len(rows)]
    return rows.select((filled or rows.columns)[:_MAX_COLUMNS]).with_columns(
        pl.col(pl.String).map_elements(short_text, return_dtype=pl.String)
    )


def _fits(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return "name" in dtype.to_schema()
    return not isinstance(dtype, _NESTED)


def cells_table(rows: Iterable[Cells]) -> pl.DataFrame:
    """Return rows as a frame without empty columns."""
    table = list(rows)
    shown = [header for header in (table or [{}])[0] if any(row[header] for row in table)]
    return pl.DataFrame([{header: row[header] for header in shown} for row in table])


def short_text(text: str) -> str:
    """Shorten long words to fit a narrow column."""
    return _LONG_WORD.sub(lambda word: f"{word[0][: _MAX_WORD - 1]}…", text)


def price_text(amount: float | None, currency: str | None) -> str:
    """Format a price, such as `40,550.00 EUR`, or return an empty string if it is unknown."""
    if amount is None or not math.isfinite(amount):
        return ""
    return f"{amount:,.2f} {currency or ''}".rstrip()


def change_text(percent: float) -> str:
    """Format a price change as a percentage. A price drop is never rounded to -100 %."""
    return f"{max(percent, -99.9):+.1f} %" if percent <= -99.5 else f"{percent:+,.0f} %"


def stock_text(in_stock: bool | None) -> str:
    return {True: "in stock", False: "sold out", None: ""}[in_stock]


def brand_text(brand: Mapping[str, Any] | None) -> str:
    return short_text((brand or {}).get("name") or "")


def product_link(row: Row, title: str | None) -> dict[str, str | None]:
    return {"text": short_text(title or row["product_url"] or ""), "url": row["product_url"]}


def median_text(metrics: Figures) -> list[str]:
    """Return the median price in the most common currency."""
    for name, amount in metrics.items():
        for prefix in MEDIANS:
            if name.startswith(prefix):
                return [f"median {price_text(amount, currency_of(name, prefix))}"]
    return []


def currency_of(name: str, prefix: str) -> str:
    """Return the currency in a metric's name, such as "EUR", or "" for `no_currency`."""
    code = name.removeprefix(prefix)
    return "" if code == NO_CURRENCY else code.upper()


def cost_text(metrics: Figures) -> list[str]:
    if "cost_usd" not in metrics:
        return []
    return [spent_text(metrics["cost_usd"], metrics.get("possibly_charged_usd", 0))]
