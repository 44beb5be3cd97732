"""The command `octogen-dagster position`: where own prices stand against competitors'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command, base_dir_option
from octogen_dagster.cli.printing import print_rows, terminal
from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_ROWS = 100


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@base_dir_option()
@click.option("--asset", default="octogen_products_position", help="Name of the position's asset.")
@click.option("--csv", "form", flag_value="csv", help="Print all columns of all pairs as CSV.")
@click.option("--json", "form", flag_value="json", help="Print all columns of all pairs as JSON.")
@reporting_errors
def position(*, base_dir: str, asset: str, form: str | None) -> None:
    """Print where own prices stand against competitors'.

    It reads the price position that was stored last: a sentence, and the pairs that match, those in
    which the own price is dearest first. A bucket is reached with the credentials of the machine.
    Exit status: 0 read, 1 failed, 2 bad input.
    """
    from octogen_dagster.position.stored import read_position
    from octogen_dagster.position.table import position_sentence

    found = read_position(base_dir, asset=asset)
    if form:
        print_rows(found.to_dicts(), form)
        return
    click.echo(position_sentence(found.lazy()).replace("**", ""))
    if matched := [row for row in found.to_dicts() if row["index"] is not None]:
        _print_table(matched)


def _print_table(pairs: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table("sku", "own", "theirs", "index", "rank", box=None, pad_edge=False)
    table.add_column("competitor", overflow="fold")
    for pair in pairs[:_MAX_ROWS]:
        name = pair["competitor_title"] or pair["product_url"]
        table.add_row(
            "" if pair["sku"] is None else printable(str(pair["sku"])),
            f"{pair['own_price']:,.2f}",
            printable(f"{pair['competitor_price']:,.2f} {pair['competitor_currency']}"),
            f"{pair['index']:.2f}",
            f"{pair['rank']} of {pair['competitors'] + 1}",
            printable(f"{name} ({pair['competitor_catalog_key']})"),
        )
    console = terminal()
    console.print()
    console.print(table)
    if len(pairs) > _MAX_ROWS:
        console.print(f"\nand {len(pairs) - _MAX_ROWS:,} more: --csv prints all.")
