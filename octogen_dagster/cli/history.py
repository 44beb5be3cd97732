"""The command `octogen-dagster history`: what a product cost, and when it could be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command, base_dir_option, moment
from octogen_dagster.cli.printing import print_rows, terminal, time_text
from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.console import Console

    from octogen_dagster.history.product_history import ProductPast, Row

_PRICE_LINE_WIDTH = 72
_MAX_DROPS = 20
_MAX_PRODUCTS = 20


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@base_dir_option()
@click.option("--product", default=None, help="The product's uuid or its product_url.")
@click.option("--title", default=None, help="A part of the product's title, in any letter case.")
@click.option("--drops", is_flag=True, help="List what became cheaper in the last snapshot.")
@click.option("--asset", default="octogen_products_history", help="Name of the history's asset.")
@click.option("--catalog", default=None, help="Key of the product's catalog.  [default: any]")
@click.option(
    "--as-of", metavar="TIME", callback=moment, default=None, help="Print what held at this time."
)
@click.option("--csv", "form", flag_value="csv", help="Print the rows of the history as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the rows of the history as JSON.")
@reporting_errors
def history(
    *,
    base_dir: str,
    product: str | None,
    title: str | None,
    drops: bool,
    asset: str,
    catalog: str | None,
    as_of: datetime | None,
    form: str | None,
) -> None:
    """Print what a product cost, and when it could be had.

    It reads the history of a products asset. If several products have a part of their title in
    common, it lists them. Times are in UTC. A bucket is reached with the credentials of the
    machine. Exit status: 0 found, 1 not found or failed, 2 bad input.
    """
    from octogen_dagster.history.product_history import find_by_title, find_drops, find_product

    if (product is not None) + (title is not None) + drops != 1:
        raise click.UsageError("Name a product by --product or by --title, or ask for --drops.")
    if as_of is not None and product is None:
        raise click.UsageError("--as-of is of one product: name it by --product.")
    if drops:
        found = find_drops(base_dir, asset=asset, catalog=catalog, number=_MAX_DROPS)
        print_rows(found.to_dicts(), form) if form else _print_drops(found.to_dicts())
        return
    if product is not None:
        pasts = find_product(base_dir, product, asset=asset, catalog=catalog, as_of=as_of)
    else:
        pasts = find_by_title(base_dir, title or "", asset=asset, catalog=catalog)
    if form:
        print_rows([row for past in pasts for row in past.rows], form)
    elif title is not None and len(pasts) > 1:
        _print_products(pasts)
    else:
        for past in pasts:
            _print_past(terminal(), past, as_of)


def _print_drops(drops: Sequence[Row]) -> None:
    if not drops:
        click.echo("No price fell in the last snapshot.")
    console = terminal()
    for drop in drops:
        before, after = (_price(drop, column) for column in ("before", "after"))
        change = f"{drop['change_percent']:+,.0f} %"
        console.print(f"{change:>6}  {before} → {after}  {_heading(drop)}", soft_wrap=True)
        console.print(printable(f"        {drop['product_url']}"), soft_wrap=True)


def _print_products(pasts: Sequence[ProductPast]) -> None:
    """Print the products among which one is to be chosen."""
    console = terminal()
    console.print(f"{len(pasts):,} products have this in their title. Choose one by --product:\n")
    for past in pasts[:_MAX_PRODUCTS]:
        last = past.rows[-1]
        now = _price(last, "current_price") if last["is_current"] else "gone"
        console.print(", ".join(filter(None, [_heading(last), now])), soft_wrap=True)
        console.print(printable(f"  {last['product_url']}"), soft_wrap=True)
    if len(pasts) > _MAX_PRODUCTS:
        console.print(f"\nand {len(pasts) - _MAX_PRODUCTS:,} more.")


def _heading(row: Row) -> str:
    return printable(f"{row['title']} ({row['catalog_key']})")


def _print_past(console: Console, past: ProductPast, as_of: datetime | None) -> None:
    """Print a table of what happened and a line of the prices; of one time its row alone."""
    from rich.table import Table

    last = past.rows[-1]
    console.print(_heading(last), style="bold", soft_wrap=True)
    console.print(printable(f"{last['product_url']}, uuid {last['uuid']}"), soft_wrap=True)
    table = Table("since", "what", "price", "before", "stock", box=None, pad_edge=False)
    title = past.rows[0]["title"]
    for since, what, row in past.events():
        if row:
            renamed = "" if row["title"] == title else printable(f", renamed from {title}")
            title = row["title"]
            prices = [_price(row, "current_price"), _price(row, "original_price")]
            table.add_row(time_text(since), what + renamed, *prices, _availability(row))
        elif as_of is None:
            table.add_row(time_text(since), what, style="dim")
    console.print()
    console.print(table)
    if as_of is None and past.priced:
        by_price = sorted(past.priced, key=lambda row: row["current_price"])
        extremes = {_price(row, "current_price"): None for row in (by_price[0], by_price[-1])}
        begin, end = time_text(past.rows[0]["valid_from"]), time_text(past.until)
        console.print(f"\n{' to '.join(extremes)}, from {begin} to {end}")
        console.print(past.price_line(min(_PRICE_LINE_WIDTH, console.width)))
    console.print()


def _price(row: Row, column: str) -> str:
    if row[column] is None:
        return ""
    return printable(f"{row[column]:,.2f} {row['currency'] or ''}".rstrip())


def _availability(row: Row) -> str:
    in_stock = {True: "in stock", False: "out of stock", None: ""}[row["in_stock"]]
    return in_stock if row["is_active"] in (True, None) else "not active"
