"""Frames as Markdown tables, in which markup is shown as text."""

import re
from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import polars as pl

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


def inline_table(frame: "pl.DataFrame") -> str:
    """Format the first rows of a frame, at least one, as a table that the UI shows in place."""
    for rows in range(len(frame), 1, -1):
        table = markdown_table(frame.head(rows))
        if len(table.encode("utf-16-le")) / 2 <= _MAX_INLINE_LENGTH:
            return table
    return markdown_table(frame.head(1))


def markdown_table(frame: "pl.DataFrame") -> str:
    """Format a frame as a Markdown table, in which markup is shown as text.

    A struct of a `text` and a `url` is a link; any other one is shown by its `name`, or without one
    by its fields that are not empty. A time is shown to the minute. A long cell is cut, unless it
    is a link.
    """
    header, *rows = [[_cell(value) for value in row] for row in (frame.columns, *frame.rows())]
    lines = [header, ["---"] * frame.width, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, dict) and value.keys() == {"text", "url"}:
        return _link(_shortened(value["text"]), value["url"])
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


def _link(text: str, url: str | None) -> str:
    """A link; only its text if the URL leads to no page, or is too long to be cut."""
    target = quote(url or "", safe=_SAFE_IN_URL)
    if not _LINK.fullmatch(target) or len(target) > _MAX_LINK_LENGTH:
        return _cell(text)
    return f"[{_LINK_MARKUP.sub(_ESCAPED, text)}]({target})"


def _shortened(text: str, limit: int = _MAX_CELL_LENGTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def inline_svg(text: str, svg: str) -> str:
    """A picture, which the UI shows without a request; `text` stands for it elsewhere."""
    return f"![{text}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"
