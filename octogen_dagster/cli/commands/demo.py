"""The command `octogen-dagster demo`: a pipeline against a local sandbox."""

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
    help="Folder to write to.",
)
@click.option("--catalogs", type=click.IntRange(1, 5), default=4, help="Number of catalogs.")
@click.option(
    "--products", type=click.IntRange(1), default=500, help="Products of the first catalog."
)
@click.option(
    "--days",
    type=click.IntRange(2),
    default=30,
    help="Days of the pipeline; all but the last two are dated back.",
)
@click.option(
    "--ui", is_flag=True, help="Open the Dagster UI, and keep everything running until Ctrl-C."
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=None,
    help="Port of the UI.  [default: 3000, or a free one if that is taken]",
)
def demo(folder: Path, ui: bool, port: int | None, **settings: int) -> None:
    """Run a pipeline against a local sandbox for thirty days.

    It needs no key and no network. The sensors of a Dagster daemon read the catalogs of the sandbox
    into Parquet files and link its listings; changes, brands, details, a history and alerts follow.
    On each day products come and go, on day 3 a competitor goes below an own price and on day 5
    below a floor, and on the last one a check fails on purpose. What an earlier demo left in the
    folder is replaced.
    """
    run_demo = import_from_sandbox_extra("octogen_dagster.demo.run").run_demo
    choose_port = import_from_sandbox_extra("octogen_dagster.demo.processes").ui_port
    run_demo(folder, **settings, port=choose_port(port) if ui else None)
