"""The command `octogen-dagster report`: the history of prices as a page that anybody opens."""

from __future__ import annotations

from pathlib import Path

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, FILE, Command, base_dir_option


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@base_dir_option()
@click.option("--asset", default="octogen_products_history", help="Name of the history's asset.")
@click.option("--days", type=click.IntRange(1), default=30, help="The last dates to show.")
@click.option("--out", type=FILE, default=Path("report.html"), help="The file to write.")
@reporting_errors
def report(*, base_dir: str, asset: str, days: int, out: Path) -> None:
    """Write the history of prices as a page that a browser opens.

    The page has filters by catalog, brand and category, the events of the last days, and the prices
    of a product when it is clicked. It is one file with all of its data: it loads nothing and sends
    nothing. Exit status: 0 written, 1 failed, 2 bad input.
    """
    from octogen_dagster.history.report.data import report_data
    from octogen_dagster.history.report.page import report_page

    page = report_page(report_data(base_dir, asset=asset, days=days))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from error
    click.echo(f"{out} ({len(page.encode()) / 1e6:.1f} MB): open it in a browser.")
