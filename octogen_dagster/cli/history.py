"""The command `octogen-dagster history`: what a product cost, and when it could be had."""

from __future__ import annotations

import csv
import json
import re
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS

if TYPE_CHECKING:
    from rich.console import Console

    from octogen_dagster.frames.product_history import ProductPast, Row

_PRICE_LINE_WIDTH = 72
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def _as_of(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    """Parse a day or a time; without an offset it is in UTC."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 knows no Z
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{text!r} is no time. Write a day as 2026-11-01, which is its beginning in UTC, or a "
            "time as 2026-11-01T06:00+01:00."
        ) from error


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--base-dir",
    required=True,
    envvar="OCTOGEN_SNAPSHOTS",
    show_envvar=True,
    help="Folder or bucket of the snapshots.",
)
@click.option("--product", required=True, help="The product's uuid or its product_url.")
@click.option("--asset", default="octogen_products_history", help="Name of the history's asset.")
@click.option("--catalog", default=None, help="Key of the product's catalog.  [default: any]")
@click.option(
    "--as-of", metavar="TIME", callback=_as_of, default=None, help="Print what held at this time."
)
@click.option("--csv", "form", flag_value="csv", help="Print the rows of the history as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the rows of the history as JSON.")
@reporting_errors
def history(
    *,
    base_dir: str,
    product: str,
    asset: str,
    catalog: str | None,
    as_of: datetime | None,
    form: str | None,
) -> None:
    """Print what a product cost, and when it could be had.

    It reads the history of a products asset. Times are in UTC. A bucket is reached with the
    credentials of the machine. Exit status: 0 found, 1 not found or failed, 2 bad input.
    """
    from octogen_dagster.frames.product_history import find_product

    pasts = find_product(base_dir, product, asset=asset, catalog=catalog, as_of=as_of)
    rows = [row for past in pasts for row in past.rows]
    if form == "json":
        click.echo(json.dumps(rows, indent=2, default=datetime.isoformat))
    elif form == "csv":
        table = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(map(_csv_row, rows))
    else:
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        for past in pasts:
            _print_past(console, past, as_of)


def _csv_row(row: Row) -> dict[str, Any]:
    texts = {name: row[name] and row[name].isoformat() for name in ("valid_from", "valid_to")}
    cells = {**row, **texts, "changed": " ".join(row["changed"] or ())}
    return {name: _shown(cell) if isinstance(cell, str) else cell for name, cell in cells.items()}


def _shown(text: str) -> str:
    """A text of a shop without the control characters that a terminal obeys."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _print_past(console: Console, past: ProductPast, as_of: datetime | None) -> None:
    """Print a table of what happened and a line of the prices; of one time its row alone."""
    from rich.table import Table

    last = past.rows[-1]
    heading = _shown(f"{last['title']} ({last['catalog_key']})")
    console.print(heading, style="bold", soft_wrap=True)
    console.print(_shown(f"{last['product_url']}, uuid {last['uuid']}"), soft_wrap=True)
    table = Table("since", "what", "price", "before", "stock", box=None, pad_edge=False)
    title = past.rows[0]["title"]
    for since, what, row in past.events():
        if row:
            renamed = "" if row["title"] == title else _shown(f", now {row['title']}")
            title = row["title"]
            prices = [_price(row, "current_price"), _price(row, "original_price")]
            table.add_row(_time(since), what + renamed, *prices, _availability(row))
        elif as_of is None:
            table.add_row(_time(since), what, style="dim")
    console.print()
    console.print(table)
    if as_of is None and past.priced:
        by_price = sorted(past.priced, key=lambda row: row["current_price"])
        extremes = {_price(row, "current_price"): None for row in (by_price[0], by_price[-1])}
        begin, end = _time(past.rows[0]["valid_from"]), _time(past.until)
        console.print(f"\n{' to '.join(extremes)}, from {begin} to {end}")
        console.print(past.price_line(min(_PRICE_LINE_WIDTH, console.width)))
    console.print()


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _price(row: Row, column: str) -> str:
    if row[column] is None:
        return ""
    return _shown(f"{row[column]:,.2f} {row['currency'] or ''}".rstrip())


def _availability(row: Row) -> str:
    in_stock = {True: "in stock", False: "out of stock", None: ""}[row["in_stock"]]
    return in_stock if row["is_active"] in (True, None) else "not active"
