"""The command line: `octogen-dagster demo` and `octogen-dagster sandbox`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from octogen_dagster.sandbox.server import Sandbox

_GENERATIONS = click.Choice(["seed", "current"])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="octogen-dagster")
def main() -> None:
    """Octogen product catalogs as Dagster assets."""


@main.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path("octogen-demo"))
@click.option("--catalogs", type=click.IntRange(1, 100), default=8, help="Number of catalogs.")
@click.option(
    "--products", type=click.IntRange(0), default=2_500, help="Number of products in each."
)
@click.option("--ui", is_flag=True, help="Keep the sandbox up and open the Dagster UI.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, help="Port of the UI.")
def demo(folder: Path, catalogs: int, products: int, ui: bool, port: int) -> None:
    """Snapshot a local sandbox's catalogs as Parquet, and link its listings; no key, no network."""
    run_demo = _needs_sandbox("octogen_dagster.demo.run").run_demo
    ui_port = port if ui else None
    complete = run_demo(
        folder, catalogs=catalogs, products=products, generation="seed", ui_port=ui_port
    )
    sys.exit(0 if complete else 1)


def _catalogs(_context: click.Context, _parameter: click.Parameter, text: str) -> int | list[str]:
    return int(text) if text.isdigit() else [key.strip() for key in text.split(",") if key.strip()]


def _faults(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> Any:
    fault = _needs_sandbox("octogen_dagster.sandbox.faults").Fault
    try:
        return [fault.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8787, help="0 for a free one.")
@click.option("--generation", type=_GENERATIONS, default="seed", help="The contract it speaks.")
@click.option("--catalogs", callback=_catalogs, default="8", help="How many, or their keys: a,b,c.")
@click.option("--products", type=click.IntRange(0), default=250, help="Products in each catalog.")
@click.option("--seed", type=int, default=1, help="Another seed, other products.")
@click.option("--api-key", default=None, help="The only key it accepts.  [default: a made-up one]")
@click.option(
    "--requests-per-minute", type=click.IntRange(1), default=600_000, help="The rate limit."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_faults,
    metavar="KIND[=VALUE][,SELECTOR=VALUE...]",
    help="What goes wrong, such as status=503,times=3 or cut,page=2; may be repeated.",
)
@click.option("--hub", is_flag=True, help="Share the catalogs over Analytics Hub and MCP as well.")
def sandbox(api_key: str | None, **settings: Any) -> None:
    """Serve a local Octogen on 127.0.0.1 until Ctrl-C."""
    server = _needs_sandbox("octogen_dagster.sandbox.server")
    try:
        server.serve(
            **settings, api_key=api_key or server.DEFAULT_API_KEY, announce=_print_environment
        )
    except (ImportError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.ClickException(f"The sandbox cannot start: {reason}") from error


def _print_environment(sandbox: Sandbox) -> None:
    click.echo(f"# A sandbox answers at {sandbox.base_url}; Ctrl-C stops it. In another shell:")
    for name, value in sandbox.environment.items():
        click.echo(f"export {name}={value}")


def _needs_sandbox(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        if "octogen-dagster[sandbox]" in str(error):
            raise click.ClickException(str(error)) from error
        raise
