"""Formats Markdown tables for previews, metric trends and price distributions.

A table on an asset's page in Dagster is 375 pixels wide, which is enough for four narrow columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

import polars as pl

from octogen_dagster.frames.cells import MEDIANS, NO_CURRENCY, Figures, currency_of
from octogen_dagster.printable import count, sparkline

_MAX_CELL_LENGTH = 80
_MAX_LINK_LENGTH = 300
_MAX_INLINE_LENGTH = 999
"""The maximum length of Markdown that the UI shows inline, in UTF-16 code units.

The UI shows longer Markdown behind a link.
"""
_LINK = re.compile(r"https?://[^\s<`\[\]]+")
_BREAKS_A_ROW = re.compile(r"[\\|]")
_MARKUP = re.compile(r"[\\|<*`~]|(?<=])\(")
"""Matches Markdown syntax to escape: a shop's titles must not add images, links or formatting."""
_LINK_MARKUP = re.compile(r"[\\|<*`~\[\]]")
"""Matches Markdown syntax to escape in a link's text."""
_ESCAPED = r"\\\g<0>"
_SAFE_IN_URL = ":/?#@!$&',;=+%-._~"
"""Characters that are not percent-encoded in a link's URL.

Brackets are encoded, because a bracket would end the link.
"""

MAX_EARLIER = 11
"""Maximum number of earlier snapshots in a trend line.

A longer line would leave no space for the numbers beside it.
"""


def inline_table(frame: pl.DataFrame) -> str:
    """Format a frame as a Markdown table, shortened to the length that the UI shows inline.

    The table always keeps the first row.
    """
    for rows in range(len(frame), 1, -1):
        table = markdown_table(frame.head(rows))
        if len(table.encode("utf-16-le")) / 2 <= _MAX_INLINE_LENGTH:
            return table
    return markdown_table(frame.head(1))


def markdown_table(frame: pl.DataFrame) -> str:
    """Format a frame as a Markdown table with markup escaped."""
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
    """Format a link, or only its text if the URL is not http(s) or is too long."""
    target = quote(url or "", safe=_SAFE_IN_URL)
    if not _LINK.fullmatch(target) or len(target) > _MAX_LINK_LENGTH:
        return _cell_text(text)
    return f"[{_LINK_MARKUP.sub(_ESCAPED, text)}]({target})"


def _shortened(text: str, limit: int = _MAX_CELL_LENGTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def trend(lines: Mapping[str, str], metrics: Figures, earlier: Sequence[Figures]) -> str:
    """Build a Markdown table with a sparkline for each metric and for the median price.

    `lines` contains the row titles by metric.
    """
    shown, lines = earlier[-MAX_EARLIER:], dict(lines)
    medians = (name for name in metrics if name.startswith(MEDIANS))
    for name in list(medians)[:1]:
        prefix = next(prefix for prefix in MEDIANS if name.startswith(prefix))
        lines[name] = f"median {currency_of(name, prefix)}".rstrip()
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
    """Format a number briefly, such as `40.99` or `1,354`."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.{0 if number >= 100 else 2}f}"


def prices(metrics: Figures) -> str:
    """Build a Markdown table of price distributions, with one row per currency."""
    rows = []
    for name, line in (metrics.get("price_lines") or {}).items():
        of = metrics["price_quantiles"][name]
        currency = "none" if name == NO_CURRENCY else name.upper()
        quantiles = [_short_number(of[share]) for share in ("p05", "p50", "p95")]
        rows.append((currency, quantiles[0], line, *quantiles[1:]))
    if not rows:
        return ""
    header = [" ", "5 %", "  ", "median", "95 %"]  # blank headers must be distinct
    return markdown_table(pl.DataFrame(rows, schema=header, orient="row"))
