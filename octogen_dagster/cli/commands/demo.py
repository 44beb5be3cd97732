"""The command `octogen-dagster demo`: a pipeline that reads a local sandbox."""

from __future__ import annotations

from pathlib import Path

import click

from octogen_dagster.cli.errors import import_from_sandbox_extra
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("octogen-demo"),
    help="Output folder.",
)
@click.option("--catalogs", type=click.IntRange(1, 5), default=4, help="Number of catalogs.")
@click.option(
    "--products",
    type=click.IntRange(1),
    default=500,
    help="Number of products in the first catalog.",
)
@click.option(
    "--days",
    type=click.IntRange(2),
    default=30,
    help="Number of days to simulate. The last two days run live. All earlier snapshots are "
    "backdated.",
)
@click.option(
    "--ui",
    is_flag=True,
    help="Open the Dagster UI, and keep the demo running until you press Ctrl-C.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=None,
    help="Port for the Dagster UI.  [default: 3000, or a free port if 3000 is in use]",
)
def demo(folder: Path, ui: bool, port: int | None, **settings: int) -> None:
    """Simulate thirty days of a pipeline with a local sandbox.

    The demo needs no API key and no network access. A Dagster daemon runs the sensors, which
    request runs. The runs store the sandbox's catalogs in Parquet files and subscribe to the
    sandbox's listings. Downstream assets store changes, brands, details, a history and alerts.

    Products appear and disappear every day. On day 3, a competitor undercuts a price in the price
    list. On day 5, a competitor undercuts the floor price. On the last day, a check fails on
    purpose. An existing demo in the same folder is overwritten.
    """
    run_demo = import_from_sandbox_extra("octogen_dagster.demo.run").run_demo
    choose_port = import_from_sandbox_extra("octogen_dagster.demo.processes").ui_port
    run_demo(folder, **settings, port=choose_port(port) if ui else None)
