"""Prints tables for commands: rows as CSV or JSON, and texts for a terminal."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.printable import write_csv

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
        write_csv(sys.stdout, rows[0], (row.values() for row in rows))


def terminal() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def time_text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
