"""The command `octogen-dagster alerts`: what became cheaper, sold out or disappeared lately."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command, base_dir_option, since_option
from octogen_dagster.cli.printing import print_rows, terminal, time_text
from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

_MAX_ROWS = 100


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@base_dir_option()
@click.option("--asset", default="octogen_products_alerts", help="Name of the alerts' asset.")
@since_option("7d", "Print the events since then: 7d or 12h ago, or a day or a time.")
@click.option("--csv", "form", flag_value="csv", help="Print the events as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the events as JSON.")
@reporting_errors
def alerts(*, base_dir: str, asset: str, since: datetime, form: str | None) -> None:
    """Print what became cheaper, dearer, sold out or available.

    Products that came or went are events too, and so are competitors below own prices: a line of
    these has the own price or the floor, and then the competitor's price.

    It reads the events that an asset of alerts has found, the latest last. Times are in UTC. A
    bucket is reached with the credentials of the machine. Exit status: 0 read, 1 failed, 2 bad
    input.
    """
    from octogen_dagster.alerts.update import read_alerts

    events = read_alerts(base_dir, asset=asset, since=since).to_dicts()
    if form:
        print_rows(events, form)
    elif events:
        _print_table(events)
    else:
        click.echo(f"No rule became true since {time_text(since)}.")


def _print_table(events: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table("at", "rule", "price", "change", box=None, pad_edge=False)
    table.add_column("product", overflow="fold")
    for event in events[-_MAX_ROWS:]:
        change = event["change_percent"]
        sku = f"{event['sku']}: " if event["sku"] else ""
        table.add_row(
            time_text(event["at"]),
            event["rule"],
            printable(_prices(event)),
            f"{change:+,.0f} %" if change else "",
            printable(f"{sku}{event['title'] or event['product_url']} ({event['catalog_key']})"),
        )
    console = terminal()
    console.print(table)
    if len(events) > _MAX_ROWS:
        console.print(f"\nand {len(events) - _MAX_ROWS:,} earlier ones: --csv prints all.")


def _prices(event: Mapping[str, Any]) -> str:
    """The price before and after; one alone if it is the same, or if there is no other."""
    prices = dict.fromkeys(
        f"{event[name]:,.2f}" for name in ("before", "after") if event[name] is not None
    )
    return f"{' → '.join(prices)} {event['currency'] or ''}".strip() if prices else ""
