"""Frames as Markdown tables, for the Dagster UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_MAX_CELL_LENGTH = 80


def markdown_table(frame: pl.DataFrame) -> str:
    """Format a frame as a Markdown table.

    A struct is shown by its `name`, or without one by its fields that are not empty. A long cell is
    cut.

    Args:
        frame: The rows; all of them are shown.
    """
    rows = [[_cell(value) for value in row] for row in frame.rows()]
    lines = [frame.columns, ["---"] * frame.width, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("name") or ", ".join(str(part) for part in value.values() if part)
    text = "" if value is None else " ".join(str(value).split())
    if len(text) > _MAX_CELL_LENGTH:
        text = f"{text[: _MAX_CELL_LENGTH - 1]}…"
    return text.replace("\\", "\\\\").replace("|", "\\|")
