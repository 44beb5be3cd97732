"""The command `octogen-dagster doctor`: what works, what does not and what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from octogen_dagster.cli.errors import FAILED, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("-m", "--module-name", "module", help="Module with your Definitions.")
@click.option(
    "-f",
    "--python-file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with your Definitions.",
)
@click.option("-a", "--attribute", help="Name of the Definitions.  [default: the only ones]")
@click.option(
    "--shop",
    "shops",
    multiple=True,
    envvar="OCTOGEN_SHOPS",
    show_envvar=True,
    help="Host of a shop whose catalogs are read. Repeat the option or use commas for several.",
)
@click.option(
    "--base-dir",
    envvar="OCTOGEN_SNAPSHOTS",
    show_envvar=True,
    help="Folder or bucket of the snapshots.",
)
@click.option(
    "--project",
    envvar="GOOGLE_CLOUD_PROJECT",
    show_envvar=True,
    help="Google Cloud project of linked datasets and queries.",
)
@click.option(
    "--principal",
    envvar="OCTOGEN_SUBSCRIBER",
    show_envvar=True,
    help="IAM principal that subscribes, as serviceAccount:reader@….iam.gserviceaccount.com.",
)
@click.option(
    "--listing",
    "listings",
    multiple=True,
    help="Resource name of a listing that must be granted. Can be repeated.  "
    "[default: those that Octogen shares]",
)
@click.option("--exchange", help="Resource name of an exchange to find listings in.")
@click.option("--timeout", type=SECONDS, default=45.0, help="Seconds for all checks.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reporting_errors
def doctor(
    *,
    module: str | None,
    file: Path | None,
    attribute: str | None,
    shops: Sequence[str],
    listings: Sequence[str],
    exchange: str | None,
    timeout: float,
    as_json: bool,
    **settings: str | None,
) -> None:
    """Say what works, what does not and what to do.

    No product is searched or looked up.

    Nothing is changed, except for one small file that is written where snapshots are stored and
    deleted again, and a refresh token that Octogen replaces. The resources are those of your
    Definitions, or else of the options and the environment, which has the API key and the login to
    Octogen's MCP.

    Exit status: 0 all works, perhaps with warnings; 1 something does not work; 2 bad input.
    """
    from octogen_dagster.doctor.diagnose import diagnose

    if module or file:
        _refuse_settings("shops", *settings)
        resources = _resources_of_definitions(module, file, attribute)
    elif attribute:
        raise ValueError("--attribute needs --module-name or --python-file: name one of them.")
    else:
        from octogen_dagster.doctor.environment import resources_from_settings

        hosts = [host for text in shops for host in text.split(",") if host.strip()]
        resources = resources_from_settings(shops=hosts, **settings)
    diagnosis = diagnose(**resources, listings=listings, exchange=exchange, timeout=timeout)
    click.echo(json.dumps(diagnosis.as_dict(), indent=2) if as_json else diagnosis)
    if not diagnosis.ok:
        sys.exit(FAILED)


def _refuse_settings(*names: str) -> None:
    """Raise ValueError if one of these options is on the command line."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ValueError(
                f"--{name.removesuffix('s').replace('_', '-')} has no effect beside --module-name "
                "or --python-file, whose resources are checked: leave one of them out."
            )


def _resources_of_definitions(
    module: str | None, file: Path | None, attribute: str | None
) -> dict[str, Any]:
    from octogen_dagster.doctor import code_location

    if module and file:
        raise ValueError(
            "--module-name and --python-file exclude each other: leave one of them out."
        )
    loaded = code_location.load_file(file) if file else code_location.load_module(module or "")
    return code_location.resources_from_definitions(loaded, attribute)
