"""Frames as Markdown tables, in which markup is shown as text."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_MAX_CELL_LENGTH = 80
_MAX_LINK_LENGTH = 300
_MAX_INLINE_LENGTH = 999
"""The most UTF-16 characters of Markdown that the UI shows in place, and not behind a link."""
_LINK = re.compile(r"https?://[^\s<`\[\]]+")
_BREAKS_A_ROW = re.compile(r"[\\|]")
_MARKUP = re.compile(r"[\\|<*`~]|(?<=])\(")
"""What is not text in Markdown: a shop's titles must not become images, links or formats."""


def inline_table(frame: "pl.DataFrame") -> str:
    """Format the first rows of a frame, at least one, as a table that the UI shows in place."""
    for rows in range(len(frame), 1, -1):
        table = markdown_table(frame.head(rows))
        if len(table.encode("utf-16-le")) / 2 <= _MAX_INLINE_LENGTH:
            return table
    return markdown_table(frame.head(1))


def markdown_table(frame: "pl.DataFrame") -> str:
    """Format a frame as a Markdown table, in which markup is shown as text.

    A struct is shown by its `name`, or without one by its fields that are not empty. A long cell is
    cut, unless it is a link.
    """
    header, *rows = [[_cell(value) for value in row] for row in (frame.columns, *frame.rows())]
    lines = [header, ["---"] * frame.width, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("name") or ", ".join(str(part) for part in value.values() if part)
    if isinstance(value, float):
        value = round(value, 4)
    text = "" if value is None else " ".join(str(value).split())
    is_link = _LINK.fullmatch(text)
    limit = _MAX_LINK_LENGTH if is_link else _MAX_CELL_LENGTH
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return (_BREAKS_A_ROW if is_link else _MARKUP).sub(r"\\\g<0>", text)
