"""The command `octogen-dagster` and its subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.bigquery import bq
from octogen_dagster.cli.doctor import doctor
from octogen_dagster.cli.errors import FAILED, debug_option, fail
from octogen_dagster.cli.estimate import estimate
from octogen_dagster.cli.login import login
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Group
from octogen_dagster.cli.project import find_project, project_environment
from octogen_dagster.cli.report import report
from octogen_dagster.cli.sql import sql
from octogen_dagster.cli.url_lists import url_lists

if TYPE_CHECKING:
    from octogen_dagster.sandbox.server import Sandbox

_GENERATIONS = click.Choice(["seed", "current"])


@click.group(cls=Group, context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="octogen-dagster")
@click.pass_context
def main(context: click.Context) -> None:
    """Octogen product catalogs as Dagster assets.

    In a project of `dg`, the variables of its `.env` are those of each command.
    """
    context.obj = find_project()
    context.with_resource(project_environment(context.obj))


main.add_command(bq)
main.add_command(doctor)
main.add_command(estimate)
main.add_command(login)
main.add_command(report)
main.add_command(sql)
main.add_command(url_lists)


@main.command()
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
    run_demo = _import_sandbox("octogen_dagster.demo.run").run_demo
    choose_port = _import_sandbox("octogen_dagster.demo.processes").ui_port
    run_demo(folder, **settings, port=choose_port(port) if ui else None)


def _catalogs(_context: click.Context, _parameter: click.Parameter, text: str) -> int | list[str]:
    return int(text) if text.isdigit() else [key.strip() for key in text.split(",") if key.strip()]


def _faults(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> Any:
    fault = _import_sandbox("octogen_dagster.sandbox.faults").Fault
    try:
        return [fault.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8787, help="Port; 0 for a free one.")
@click.option(
    "--generation", type=_GENERATIONS, default="current", help="Generation of the API contract."
)
@click.option(
    "--catalogs", callback=_catalogs, default="5", help="Number of catalogs, or their keys: a,b,c."
)
@click.option(
    "--products", type=click.IntRange(0), default=250, help="Number of products per catalog."
)
@click.option("--seed", type=int, default=1, help="Seed of the generated products.")
@click.option(
    "--day", type=click.IntRange(1), default=1, help="Day to serve: prices move with each."
)
@click.option("--api-key", default=None, help="API key to accept.  [default: a made-up one]")
@click.option("--requests-per-minute", type=click.IntRange(1), default=600_000, help="Rate limit.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_faults,
    metavar="KIND[=VALUE][,SELECTOR=VALUE...]",
    help="Fault to inject, such as status=503,times=3 or cut,page=2. Can be repeated.",
)
@click.option(
    "--credit",
    "credit_usd",
    type=click.FloatRange(0),
    default=None,
    help="Credit in US dollars, after which answers are a 402.  [default: endless]",
)
@click.option("--hub", is_flag=True, help="Also share the catalogs over Analytics Hub and MCP.")
@debug_option
def sandbox(api_key: str | None, debug: bool, **settings: Any) -> None:
    """Serve a local Octogen on 127.0.0.1 until you press Ctrl-C."""
    server = _import_sandbox("octogen_dagster.sandbox.server")
    try:
        server.serve(
            **settings, api_key=api_key or server.DEFAULT_API_KEY, announce=_print_environment
        )
    except (ImportError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        fail(f"Error: The sandbox cannot start: {reason}", FAILED, error if debug else None)


def _print_environment(sandbox: Sandbox) -> None:
    click.echo(f"# The sandbox listens at {sandbox.base_url}; Ctrl-C stops it. In another shell:")
    for name, value in sandbox.environment.items():
        click.echo(f"export {name}={value}")


def _import_sandbox(module: str) -> Any:
    """Import a module that needs the extra `sandbox`."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        if "octogen-dagster[sandbox]" in str(error):
            raise click.ClickException(str(error)) from error
        raise
