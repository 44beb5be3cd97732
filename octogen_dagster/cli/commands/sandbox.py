"""The command `octogen-dagster sandbox`: a local Octogen service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import FAILED, debug_option, fail, import_from_sandbox_extra
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Command

if TYPE_CHECKING:
    from octogen_dagster.sandbox.server import Sandbox

_GENERATIONS = click.Choice(["seed", "current"])


def _catalogs(_context: click.Context, _parameter: click.Parameter, text: str) -> int | list[str]:
    return int(text) if text.isdigit() else [key.strip() for key in text.split(",") if key.strip()]


def _faults(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> Any:
    fault = import_from_sandbox_extra("octogen_dagster.sandbox.faults").Fault
    try:
        return [fault.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    help="Port for the REST API. Use 0 for a free port.",
)
@click.option("--generation", type=_GENERATIONS, default="current", help="API contract version.")
@click.option(
    "--catalogs",
    callback=_catalogs,
    default="5",
    help="Number of catalogs, or a comma-separated list of catalog keys, such as a,b,c.",
)
@click.option(
    "--products", type=click.IntRange(0), default=250, help="Number of products per catalog."
)
@click.option("--seed", type=int, default=1, help="Seed for the generated products.")
@click.option(
    "--day", type=click.IntRange(1), default=1, help="Day to simulate. Prices change every day."
)
@click.option("--api-key", default=None, help="API key to accept.  [default: a generated key]")
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
    help="Prepaid credit in US dollars. Once spent, requests return 402.  [default: unlimited]",
)
@click.option("--hub", is_flag=True, help="Also share the catalogs through Analytics Hub and MCP.")
@debug_option
def sandbox(api_key: str | None, debug: bool, **settings: Any) -> None:
    """Run a local Octogen service on 127.0.0.1 until Ctrl-C."""
    server = import_from_sandbox_extra("octogen_dagster.sandbox.server")
    try:
        server.serve(
            **settings, api_key=api_key or server.DEFAULT_API_KEY, announce=_print_environment
        )
    except (ImportError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        fail(f"Error: The sandbox cannot start: {reason}", FAILED, error if debug else None)


def _print_environment(sandbox: Sandbox) -> None:
    click.echo(f"# Listening on {sandbox.base_url}. Press Ctrl-C to stop. In another shell, run:")
    for name, value in sandbox.environment.items():
        click.echo(f"export {name}={value}")
