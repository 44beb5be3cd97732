"""The command `octogen-dagster report`: the price history as an HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from octogen_dagster.cli.errors import reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, FILE, Command, base_dir_option


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@base_dir_option()
@click.option("--asset", default="octogen_products_history", help="History asset name.")
@click.option("--days", type=click.IntRange(1), default=30, help="Number of days to show.")
@click.option("--out", type=FILE, default=Path("report.html"), help="Output file.")
@reporting_errors
def report(*, base_dir: str, asset: str, days: int, out: Path) -> None:
    """Write the price history as an HTML page.

    The page shows recent events, with filters for catalog, brand and category. Click a product to
    see its prices. The page is self-contained and makes no network requests.

    The exit status is 0 on success, 1 on failure and 2 for bad input.
    """
    from octogen_dagster.history.report.data import report_data
    from octogen_dagster.history.report.page import report_page

    page = report_page(report_data(base_dir, asset=asset, days=days))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from error
    click.echo(f"Wrote {out} ({len(page.encode()) / 1e6:.1f} MB). Open it in a browser.")
