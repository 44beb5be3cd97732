"""The command `octogen-dagster sql`: SQL queries on stored snapshots."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command
from octogen_dagster.cli.project import Project
from octogen_dagster.printable import printable, time_text, write_csv

if TYPE_CHECKING:
    from octogen_dagster.storage.store import Store

_MAX_ROWS = 100
_MAX_WIDTH = 24
"""The maximum width of a column. Longer values are wrapped."""
_C1 = re.compile("[\x7f-\x9f]")


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@click.argument("query", required=False)
@click.option(
    "--base-dir",
    envvar="OCTOGEN_SNAPSHOTS",
    show_envvar=True,
    help="Snapshot folder or bucket.  [default: from the project's definitions]",
)
@click.option("--csv", "form", flag_value="csv", help="Print all rows as CSV.")
@click.option("--json", "form", flag_value="json", help="Print all rows as JSON.")
@reporting_errors
def sql(*, query: str | None, base_dir: str | None, form: str | None) -> None:
    """Query stored snapshots with SQL, or list their tables.

    QUERY is a SELECT statement in the Polars dialect. Each asset's table has the same name as the
    asset. In tables for partitioned assets, the column `partition` contains the partition key.
    Quote asset keys that have a prefix, such as "shops/octogen_products". Times are in UTC.

    If --base-dir is a bucket, the command uses the machine's credentials. The exit status is 0 on
    success, 1 on failure and 2 for bad input.
    """
    from octogen_dagster.storage.sql import list_tables, query_tables

    store = _store(base_dir)
    if query is None:
        rows = list_tables(store)
    else:
        rows = query_tables(store, query, None if form else _MAX_ROWS + 1)
    if form == "csv":
        write_csv(sys.stdout, rows.columns, rows.iter_rows())
    elif form == "json":
        click.echo(_C1.sub(lambda found: f"\\u{ord(found[0]):04x}", rows.write_json()))
    else:
        _print_table(rows)


def _store(base_dir: str | None) -> Store:
    """Return the store for `--base-dir` or, by default, for the project's IO manager."""
    from octogen_dagster.storage.store import Store

    if base_dir is not None:
        return Store(base_dir)
    project = click.get_current_context().find_object(Project)
    if project is None:
        raise ValueError(
            "The snapshot folder is unknown. Pass --base-dir, set OCTOGEN_SNAPSHOTS, or run the "
            "command in a dg project."
        )
    from octogen_dagster.doctor.resources import project_resources

    os.chdir(project.folder)  # as dg does, because folders in definitions can be relative
    found, finding = project_resources(*project)
    managers = found.get("io_manager", {})
    if len(managers) != 1:
        raise ValueError(
            f"The project must have one snapshot IO manager; found {len(managers)}. Pass the "
            f"folder or bucket as --base-dir, or set OCTOGEN_SNAPSHOTS. ({finding.message})"
        )
    (manager,) = managers.values()
    store: Store = manager.process_config_and_initialize().store
    return store


def _print_table(rows: Any) -> None:
    """Print the first rows, with as many columns as fit in the terminal."""
    from rich.console import Console
    from rich.table import Table

    console, table = Console(highlight=False, markup=False), Table(box=None, pad_edge=False)
    columns, width = dict[str, list[str]](), -2
    for column in rows.head(_MAX_ROWS).iter_columns():
        cells = [printable(_text(value)) for value in column]
        width += 2 + min(max(map(len, [column.name, *cells])), _MAX_WIDTH)
        if columns and width > console.width:
            break
        columns[column.name] = cells
        justify: Any = "right" if column.dtype.is_numeric() else "left"
        table.add_column(printable(column.name), justify=justify, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console.print(table)
    if not len(rows):
        click.echo("No rows.")
    if len(rows) > _MAX_ROWS:
        click.echo(f"\nShowing the first {_MAX_ROWS} rows. For all rows, add --csv.")
    if left := rows.width - len(columns):
        click.echo(
            f"\n{left} more columns do not fit in the terminal. Select fewer columns, or add --csv."
        )


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{round(value, 4):,}"
    if hasattr(value, "to_list"):  # a Polars series
        return ", ".join(map(_text, value))
    if isinstance(value, bool | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)
