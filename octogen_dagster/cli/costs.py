"""The command `octogen-dagster costs`: what the runs of a Dagster instance cost, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command, since_option
from octogen_dagster.cli.printing import print_rows, terminal
from octogen_dagster.printable import printable, usd

if TYPE_CHECKING:
    from datetime import datetime

_MAX_ROWS = 100
_NUMBERS = {"requests": "requests", "cost_usd": "dollars", "billed_bytes": "billed"}


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@since_option("30d", "Add up the costs since that day (UTC): 30d ago, or a day.")
@click.option(
    "--by",
    type=click.Choice(["catalog", "asset", "week"]),
    default=None,
    help="Add them up by one of these.  [default: by day, asset and catalog]",
)
@click.option("--csv", "form", flag_value="csv", help="Print the costs as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the costs as JSON.")
@reporting_errors
def costs(*, since: datetime, by: str | None, form: str | None) -> None:
    """Print what runs have cost at Octogen and at Google.

    It adds up the requests, dollars and billed bytes that runs have reported to the Dagster
    instance of DAGSTER_HOME, also for reads that failed, by asset and catalog. Exit status: 0 read,
    1 failed, 2 bad input.
    """
    from octogen_dagster.costs.runs import instance_costs
    from octogen_dagster.costs.table import costs_by

    found = instance_costs(since)
    rows = costs_by(found, by) if by else found
    if form:
        print_rows(rows.to_dicts(), form)
    elif len(rows):
        _print_table(rows)
    else:
        click.echo(f"No run has reported costs since {since:%Y-%m-%d}.")


def _print_table(costs: Any) -> None:
    from rich.table import Table

    from octogen_dagster.costs.table import bytes_text

    by = [name for name in costs.columns if name not in (*_NUMBERS, "possibly_charged_usd")]
    table = Table(*by, box=None, pad_edge=False)
    for header in _NUMBERS.values():
        table.add_column(header, justify="right")

    def add(labels: list[str], requests: int, dollars: float, billed: int) -> None:
        table.add_row(*labels, f"{requests:,}", usd(dollars), bytes_text(billed))

    costs = costs.drop("possibly_charged_usd")
    for *labels, requests, dollars, billed in costs.head(_MAX_ROWS).iter_rows():
        texts = ["" if each is None else printable(str(each)) for each in labels]
        add(texts, requests, dollars, billed)
    sums = costs.select(*_NUMBERS).sum().row(0)
    add(["all", *[""] * (len(by) - 1)], *sums)
    console = terminal()
    console.print(table)
    if len(costs) > _MAX_ROWS:
        console.print(f"\nall is also of {len(costs) - _MAX_ROWS:,} more rows: --csv prints them.")
