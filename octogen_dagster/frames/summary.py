"""What tells most of a snapshot to a person: a sentence, its first rows, lines of those before.

All but the sentence are tables of Markdown. The page of an asset has 375 pixels for one: four
narrow columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import polars as pl

from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.frames.catalogs import CATALOGS_SCHEMA
from octogen_dagster.frames.changes import CHANGES_SCHEMA
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.frames.history import HISTORY_SCHEMA
from octogen_dagster.frames.position import POSITION_SCHEMA, position_figures
from octogen_dagster.frames.stored import WATCHED
from octogen_dagster.printable import count, sparkline, usd

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

_MEDIANS = ("price_p50_", "median_price_")
"""The beginnings of the names of median prices, of a snapshot and of a history."""
_NO_CURRENCY = "no_currency"
MAX_EARLIER = 11
"""The snapshots before that a line shows: a longer one would not fit beside its numbers."""
_ADDRESSES = ("product_url", "nearest")
_STATUSES = ("found", "gone", "mismatched", "failed")

Metrics = Mapping[str, Any]
"""The metrics of a snapshot by name, and its number of `rows`."""
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
        return _table(map(_change_cells, _changes(snapshot)))
    if POSITION_SCHEMA.items() <= schema.items():
        dearest = snapshot.sort("index", descending=True, nulls_last=True).head(_MAX_ROWS)
        return _table(map(_position_cells, dearest.collect().to_dicts()))
    fitting = [name for name, dtype in schema.items() if _fits(dtype)]
    rows = snapshot.select(fitting).head(_MAX_ROWS).collect()
    filled = [column.name for column in rows if column.null_count() < len(rows)]
    return rows.select((filled or rows.columns)[:_MAX_COLUMNS]).with_columns(
        pl.col(pl.String).map_elements(_short, return_dtype=pl.String)
    )


def drops_preview(drops: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `price_drops` as cells."""
    return _table(map(_drop_cells, drops.to_dicts()))


def alerts_preview(alerts: pl.DataFrame) -> pl.DataFrame:
    """Return events of alerts as cells."""
    return _table(map(_alert_cells, alerts.to_dicts()))


def shares_preview(summary: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return a summary of a position by a column as cells."""
    return _table(_share_cells(row, by) for row in summary.to_dicts())


def unmatched_preview(position: pl.DataFrame) -> pl.DataFrame:
    """Return rows of a position without a match, with the `nearest` pages, as cells."""
    return _table(map(_unmatched_cells, position.to_dicts()))


def _short(text: str) -> str:
    """A text whose words are short enough for a narrow column."""
    return _LONG_WORD.sub(lambda word: f"{word[0][: _MAX_WORD - 1]}…", text)


def _price(amount: float | None, currency: str | None) -> str:
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
    return {"text": _short(title or row["product_url"] or ""), "url": row["product_url"]}


def _name(brand: Mapping[str, Any] | None) -> str:
    return _short((brand or {}).get("name") or "")


def _stock(in_stock: bool | None) -> str:
    return {True: "in stock", False: "sold out", None: ""}[in_stock]


def _product_cells(row: Row) -> Cells:
    return {
        "product": _link(row, row["title"]),
        "brand": _name(row["brand"]),
        "price": _price(row["current_price"], row["currency"]),
        "stock": _stock(row["in_stock"]),
    }


def _detail_cells(row: Row) -> Cells:
    return {
        "product": _link(row, row["title"]),
        "status": row["status"],
        "brand": _name(row["brand"]),
        "price": _price(row["current_price"], row["currency"]),
    }


def _past_cells(row: Row) -> Cells:
    sold_out = "sold out" if row["in_stock"] is False else ""
    return {
        "product": _link(row, row["title"]),
        "price": ", ".join(filter(None, [_price(row["current_price"], row["currency"]), sold_out])),
        "from": row["valid_from"],
        "until": row["valid_to"],
    }


def _drop_cells(row: Row) -> Cells:
    return {
        "product": _link(row, row["title"]),
        "price": f"{row['before']:,.2f} → {_price(row['after'], row['currency'])}",
        "change": f"{row['change_percent']:+,.0f} %",
    }


def _alert_cells(row: Row) -> Cells:
    before, after = row["before"], row["after"]
    prices = [_price(after if before == after else before, row["currency"])]
    if after is not None and before not in (None, after):
        prices = [f"{before:,.2f}", _price(after, row["currency"])]
    change = row["change_percent"]
    return {
        "alert": row["rule"].replace("_", " "),
        "product": _link(row, row["title"]),
        "price": " → ".join(prices) if prices[0] else _price(after, row["currency"]),
        "change": f"{change:+,.0f} %" if change else "",
    }


def _catalog_cells(row: Row) -> Cells:
    return {
        "catalog": _short(row["catalog"]),
        "products": row["product_count"],
        "as of": row["last_indexed_at"] or row["computed_at"],
    }


def _brand_cells(row: Row) -> Cells:
    share = row["in_stock_share"]
    return {
        "brand": row["brand"] or "",
        "products": row["products"],
        "median": _price(row["price_p50"], row["currency"]),
        "in stock": "" if share is None else f"{share:.0%}",
    }


def _position_cells(row: Row) -> Cells:
    return {
        "sku": row["sku"],
        "product": _link(row, row["competitor_title"]),
        "own": _price(row["own_price"], None if row["index"] else row["currency"]),
        "theirs": _price(row["competitor_price"], row["competitor_currency"]),
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
    ends = {name: (row[name] or "").rstrip("/").rpartition("/")[2] for name in _ADDRESSES}
    links = {name: {"text": end, "url": row[name]} for name, end in ends.items() if end}
    return {
        "sku": row["sku"],
        "page": links.get("product_url"),
        "status": row["status"].replace("_", " "),
        "nearest page": links.get("nearest"),
    }


def _changes(changes: pl.LazyFrame) -> list[dict[str, Any]]:
    """Some changes of each kind."""
    kinds = [
        changes.filter(pl.col("change") == kind).head(rows) for kind, rows in _MAX_CHANGES.items()
    ]
    return pl.concat(kinds).collect().to_dicts()


def _change_cells(row: Row) -> Cells:
    """A change, with what changed as "old → new"."""
    prices = [
        _price(row[f"{when}_current_price"], row[f"{when}_currency"]) for when in ("old", "new")
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
        _product_cells,
    ),
    (
        DETAIL_SCHEMA,
        ["title", "product_url", "status", "brand", "current_price", "currency"],
        _detail_cells,
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
        _past_cells,
    ),
    (BRANDS_SCHEMA, BRANDS_SCHEMA.names(), _brand_cells),
    (
        CATALOGS_SCHEMA,
        ["catalog", "product_count", "last_indexed_at", "computed_at"],
        _catalog_cells,
    ),
)
"""Schemas, with the columns that their cells are made of."""


def summary(snapshot: pl.LazyFrame, metrics: Metrics) -> str:
    """The sentence about a snapshot, in Markdown; that of its source if it has one."""
    if "summary" in metrics:
        return str(metrics["summary"])
    schema = snapshot.collect_schema()
    for known, sentence in _SENTENCES:
        if schema == known:
            return sentence(metrics, snapshot)
    if POSITION_SCHEMA.items() <= schema.items():
        return _position_sentence(snapshot)
    return f"**{count(metrics['rows'], 'row')}**"


def _products_sentence(metrics: Metrics, _: pl.LazyFrame) -> str:
    text = f"**{count(metrics['rows'], 'product')}**"
    if metrics.get("truncated"):
        text += ", cut off at max_products"
    if metrics.get("first_snapshot"):
        text += ", the first snapshot"
    elif "appeared" in metrics:
        moved = count(metrics["price_changed"], "price")
        text += f", {metrics['appeared']:,} new, {metrics['disappeared']:,} gone, {moved} moved"
    return "; ".join([text, *_median(metrics), *_cost(metrics)])


def _details_sentence(metrics: Metrics, _: pl.LazyFrame) -> str:
    statuses = [f"{metrics[name]:,} {name}" for name in _STATUSES if metrics.get(name)]
    text = f"**{count(metrics['rows'], 'product')}**: {', '.join(statuses) or 'none looked up'}"
    carried = [f"{metrics['carried_over']:,} carried over"] if metrics.get("carried_over") else []
    return "; ".join([text, *carried, *_cost(metrics)])


def _history_sentence(metrics: Metrics, _: pl.LazyFrame) -> str:
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


def _changes_sentence(_: Metrics, snapshot: pl.LazyFrame) -> str:
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


def _position_sentence(position: pl.LazyFrame) -> str:
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


def _brands_sentence(_: Metrics, snapshot: pl.LazyFrame) -> str:
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


def _catalogs_sentence(metrics: Metrics, snapshot: pl.LazyFrame) -> str:
    text = f"**{count(metrics['rows'], 'catalog')}**"
    products = snapshot.select("product_count").collect().to_series()
    return text if products.has_nulls() else f"{text} with {count(int(products.sum()), 'product')}"


def _median(metrics: Metrics) -> list[str]:
    """The median price of the currency with the most products."""
    for name, amount in metrics.items():
        for prefix in _MEDIANS:
            if name.startswith(prefix):
                return [f"median {_price(amount, _currency_of(name, prefix))}"]
    return []


def _currency_of(name: str, prefix: str) -> str:
    """The currency in the name of a metric; empty for products without one."""
    code = name.removeprefix(prefix)
    return "" if code == _NO_CURRENCY else code.upper()


def _cost(metrics: Metrics) -> list[str]:
    return [usd(metrics["cost_usd"])] if "cost_usd" in metrics else []


_SENTENCES: tuple[tuple[pl.Schema, Callable[[Metrics, pl.LazyFrame], str]], ...] = (
    (PRODUCT_SCHEMA, _products_sentence),
    (DETAIL_SCHEMA, _details_sentence),
    (HISTORY_SCHEMA, _history_sentence),
    (CHANGES_SCHEMA, _changes_sentence),
    (BRANDS_SCHEMA, _brands_sentence),
    (CATALOGS_SCHEMA, _catalogs_sentence),
)


def trend(schema: Mapping[str, pl.DataType], metrics: Metrics, earlier: Sequence[Metrics]) -> str:
    """Lines of the number of rows, or of products, and of the median price, as a Markdown table.

    `earlier` are the metrics of the snapshots before, the oldest first. Without any it is empty.
    """
    shown = earlier[-MAX_EARLIER:]
    lines = {"rows": "products" if schema in (PRODUCT_SCHEMA, DETAIL_SCHEMA) else "rows"}
    if "current_products" in metrics:
        lines = {"current_products": "products"}
    medians = (name for name in metrics if name.startswith(_MEDIANS))
    for name in list(medians)[:1]:
        prefix = next(prefix for prefix in _MEDIANS if name.startswith(prefix))
        lines[name] = f"median {_currency_of(name, prefix)}".rstrip()
    rows = []
    for name, title in lines.items():
        numbers = [each[name] for each in (*shown, metrics) if name in each]
        if len(numbers) > 1:
            ends = [_short_number(number) for number in (numbers[0], numbers[-1])]
            rows.append((title, ends[0], sparkline(numbers), ends[1]))
    if not rows:
        return ""
    snapshots = count(len(shown) + 1, "snapshot")
    is_whole = len(shown) + 1 == metrics.get("snapshots", len(shown) + 1)
    header = [snapshots if is_whole else f"last {snapshots}", "first", " ", "last"]
    return markdown_table(pl.DataFrame(rows, schema=header, orient="row"))


def _short_number(number: float) -> str:
    """A number of few characters, such as `40.99` and `1,354`."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.{0 if number >= 100 else 2}f}"


def prices(metrics: Metrics) -> str:
    """Lines of the distribution of prices in each currency, as a Markdown table."""
    rows = []
    for name, line in (metrics.get("price_lines") or {}).items():
        of = metrics["price_quantiles"][name]
        currency = "none" if name == _NO_CURRENCY else name.upper()
        quantiles = [_short_number(of[share]) for share in ("p05", "p50", "p95")]
        rows.append((currency, quantiles[0], line, *quantiles[1:]))
    if not rows:
        return ""
    header = [" ", "5 %", "  ", "median", "95 %"]  # blank ones, which differ in their names
    return markdown_table(pl.DataFrame(rows, schema=header, orient="row"))
