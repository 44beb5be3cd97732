"""Prints tables for commands: rows as CSV or JSON, and texts for a terminal."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console


DRY_RUN = "Dry run: nothing is changed. Add --apply to make the changes."
"""The first line of a command that only says what it would do."""


def print_rows(rows: Sequence[Mapping[str, Any]], form: str) -> None:
    """Print rows as `csv` or `json`."""
    if form == "json":
        click.echo(json.dumps(rows, indent=2, default=_text))
    elif rows:
        table = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def terminal() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def time_text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _cell(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return " ".join(map(str, value))
    return printable(value) if isinstance(value, str) else value
