"""The rows and columns of a snapshot that tell most of it, and tables of Markdown for the UI.

The page of an asset has 375 pixels for a table: four narrow columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import polars as pl

from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.frames.catalogs import CATALOGS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_SCHEMA
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.frames.history import HISTORY_SCHEMA

_MAX_ROWS = 5
_MAX_BRANDS = 10
_MAX_COLUMNS = 4
_MAX_CHANGES = {"changed": 5, "appeared": 2, "disappeared": 2}
_MAX_WORD = 24
_LONG_WORD = re.compile(rf"\S{{{_MAX_WORD + 1},}}")
_NESTED = (pl.List, pl.Array, pl.Object, pl.Binary)
_MAX_CELL_LENGTH = 80
_MAX_LINK_LENGTH = 300
_MAX_INLINE_LENGTH = 999
"""The most UTF-16 characters of Markdown that the UI shows in place, and not behind a link."""
_LINK = re.compile(r"https?://[^\s<`\[\]]+")
_BREAKS_A_ROW = re.compile(r"[\\|]")
_MARKUP = re.compile(r"[\\|<*`~]|(?<=])\(")
"""Markup of Markdown: a shop's titles must not become images, links or formats."""
_LINK_MARKUP = re.compile(r"[\\|<*`~\[\]]")
"""Markup in the text of a link."""
_ESCAPED = r"\\\g<0>"
_SAFE_IN_URL = ":/?#@!$&',;=+%-._~"
"""Characters that stay in a URL as they are; a bracket would end the link."""

Row = Mapping[str, Any]
Cells = dict[str, Any]
"""The cells of a row by their header: texts, numbers and times, and links of a text and a URL."""


def preview(snapshot: pl.LazyFrame) -> pl.DataFrame:
    """Return the first rows of a snapshot.

    A table of this project's own schemas has the columns that tell most, any other its first ones
    that fit. A struct of a `text` and a `url` is a link.
    """
    schema = snapshot.collect_schema()
    for known, columns, cells in _SHOWN:
        if schema == known:
            first = snapshot.head(_MAX_BRANDS if known == BRANDS_SCHEMA else _MAX_ROWS)
            return _table(map(cells, first.select(columns).collect().to_dicts()))
    if schema == CHANGES_SCHEMA:
        return _table(map(_change, _changes(snapshot)))
    fitting = [name for name, dtype in schema.items() if _fits(dtype)]
    rows = snapshot.select(fitting).head(_MAX_ROWS).collect()
    filled = [column.name for column in rows if column.null_count() < len(rows)]
    return rows.select((filled or rows.columns)[:_MAX_COLUMNS]).with_columns(
        pl.col(pl.String).map_elements(short, return_dtype=pl.String)
    )


def drops_preview(drops: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `price_drops` as cells."""
    return _table(map(_drop, drops.to_dicts()))


def alerts_preview(alerts: pl.DataFrame) -> pl.DataFrame:
    """Return events of alerts as cells."""
    return _table(map(_alert, alerts.to_dicts()))


def short(text: str) -> str:
    """A text whose words are short enough for a narrow column."""
    return _LONG_WORD.sub(lambda word: f"{word[0][: _MAX_WORD - 1]}…", text)


def price(amount: float | None, currency: str | None) -> str:
    """A price as a person writes it, such as `40,550.00 EUR`; empty if it is not known."""
    if amount is None or not math.isfinite(amount):
        return ""
    return f"{amount:,.2f} {currency or ''}".rstrip()


def _fits(dtype: pl.DataType) -> bool:
    """True unless a value of the type is a table of its own."""
    if isinstance(dtype, pl.Struct):
        return "name" in dtype.to_schema()
    return not isinstance(dtype, _NESTED)


def _table(rows: Iterable[Cells]) -> pl.DataFrame:
    """Rows as a frame, without the columns that have nothing to show."""
    table = list(rows)
    shown = [header for header in (table or [{}])[0] if any(row[header] for row in table)]
    return pl.DataFrame([{header: row[header] for header in shown} for row in table])


def _link(row: Row, title: str | None) -> dict[str, str | None]:
    return {"text": short(title or row["product_url"] or ""), "url": row["product_url"]}


def _name(brand: Mapping[str, Any] | None) -> str:
    return short((brand or {}).get("name") or "")


def _stock(in_stock: bool | None) -> str:
    return {True: "in stock", False: "sold out", None: ""}[in_stock]


def _product(row: Row) -> Cells:
    return {
        "product": _link(row, row["title"]),
        "brand": _name(row["brand"]),
        "price": price(row["current_price"], row["currency"]),
        "stock": _stock(row["in_stock"]),
    }


def _detail(row: Row) -> Cells:
    return {
        "product": _link(row, row["title"]),
        "status": row["status"],
        "brand": _name(row["brand"]),
        "price": price(row["current_price"], row["currency"]),
    }


def _past(row: Row) -> Cells:
    sold_out = "sold out" if row["in_stock"] is False else ""
    return {
        "product": _link(row, row["title"]),
        "price": ", ".join(filter(None, [price(row["current_price"], row["currency"]), sold_out])),
        "from": row["valid_from"],
        "until": row["valid_to"],
    }


def _drop(row: Row) -> Cells:
    return {
        "product": _link(row, row["title"]),
        "price": f"{row['before']:,.2f} → {price(row['after'], row['currency'])}",
        "change": f"{row['change_percent']:.0f} %",
    }


def _alert(row: Row) -> Cells:
    before, after = row["before"], row["after"]
    prices = [price(after if before == after else before, row["currency"])]
    if after is not None and before not in (None, after):
        prices = [f"{before:,.2f}", price(after, row["currency"])]
    change = row["change_percent"]
    return {
        "alert": row["rule"].replace("_", " "),
        "product": _link(row, row["title"]),
        "price": " → ".join(prices) if prices[0] else price(after, row["currency"]),
        "change": f"{change:.0f} %" if change else "",
    }


def _catalog(row: Row) -> Cells:
    return {
        "catalog": short(row["catalog"]),
        "products": row["product_count"],
        "as of": row["last_indexed_at"] or row["computed_at"],
    }


def _brand(row: Row) -> Cells:
    share = row["in_stock_share"]
    return {
        "brand": row["brand"] or "",
        "products": row["products"],
        "median": price(row["price_p50"], row["currency"]),
        "in stock": "" if share is None else f"{share:.0%}",
    }


def _changes(changes: pl.LazyFrame) -> list[dict[str, Any]]:
    """Some changes of each kind."""
    kinds = [
        changes.filter(pl.col("change") == kind).head(rows) for kind, rows in _MAX_CHANGES.items()
    ]
    return pl.concat(kinds).collect().to_dicts()


def _change(row: Row) -> Cells:
    """A change, with what changed as "old → new"."""
    prices = [
        price(row[f"{when}_current_price"], row[f"{when}_currency"]) for when in ("old", "new")
    ]
    if row["change"] == "changed" and row["old_currency"] == row["new_currency"]:
        prices[0] = prices[0].removesuffix(f" {row['new_currency']}")
    return {
        "change": row["change"],
        "product": _link(row, _moved(row, row["old_title"] or "", row["new_title"] or "")),
        "price": _moved(row, *(each or "none" for each in prices)),
        "stock": _moved(row, *(_stock(row[f"{when}_in_stock"]) for when in ("old", "new"))),
    }


def _moved(row: Row, old: str, new: str) -> str:
    if row["change"] != "changed":
        return old if row["change"] == "disappeared" else new
    return new if old == new else f"{old or 'none'} → {new or 'none'}"


def inline_table(frame: pl.DataFrame) -> str:
    """Format the first rows of a frame, at least one, as a table that the UI shows in place."""
    for rows in range(len(frame), 1, -1):
        table = markdown_table(frame.head(rows))
        if len(table.encode("utf-16-le")) / 2 <= _MAX_INLINE_LENGTH:
            return table
    return markdown_table(frame.head(1))


def markdown_table(frame: pl.DataFrame) -> str:
    """Format a frame as a Markdown table, in which markup is shown as text.

    A struct of a `text` and a `url` is a link; any other one is shown by its `name`, or without one
    by its fields that are not empty. A time is shown to the minute. A long cell is cut, unless it
    is a link.
    """
    header, *rows = [[_cell_text(value) for value in row] for row in (frame.columns, *frame.rows())]
    lines = [header, ["---"] * frame.width, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell_text(value: object) -> str:
    if isinstance(value, dict) and value.keys() == {"text", "url"}:
        return _markdown_link(_shortened(value["text"]), value["url"])
    if isinstance(value, datetime):
        value = f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, dict):
        value = value.get("name") or ", ".join(str(part) for part in value.values() if part)
    if isinstance(value, float):
        value = round(value, 4)
    text = "" if value is None else " ".join(str(value).split())
    if _LINK.fullmatch(text):
        return _BREAKS_A_ROW.sub(_ESCAPED, _shortened(text, _MAX_LINK_LENGTH))
    return _MARKUP.sub(_ESCAPED, _shortened(text))


def _markdown_link(text: str, url: str | None) -> str:
    """A link; only its text if the URL leads to no page, or is too long to be cut."""
    target = quote(url or "", safe=_SAFE_IN_URL)
    if not _LINK.fullmatch(target) or len(target) > _MAX_LINK_LENGTH:
        return _cell_text(text)
    return f"[{_LINK_MARKUP.sub(_ESCAPED, text)}]({target})"


def _shortened(text: str, limit: int = _MAX_CELL_LENGTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


_SHOWN: tuple[tuple[pl.Schema, list[str], Callable[[Row], Cells]], ...] = (
    (
        PRODUCT_SCHEMA,
        ["title", "product_url", "brand", "current_price", "currency", "in_stock"],
        _product,
    ),
    (
        DETAIL_SCHEMA,
        ["title", "product_url", "status", "brand", "current_price", "currency"],
        _detail,
    ),
    (
        HISTORY_SCHEMA,
        [
            "title",
            "product_url",
            "current_price",
            "currency",
            "in_stock",
            "valid_from",
            "valid_to",
        ],
        _past,
    ),
    (BRANDS_SCHEMA, BRANDS_SCHEMA.names(), _brand),
    (
        CATALOGS_SCHEMA,
        ["catalog", "product_count", "last_indexed_at", "computed_at"],
        _catalog,
    ),
)
"""Schemas, with the columns that their cells are made of."""
