"""The command `octogen-dagster doctor`: what works, what does not and what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from octogen_dagster.cli.errors import FAILED, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, SECONDS

_SETTINGS = {
    "io_manager": "base_dir",
    "control_plane": "principal",
    "analytics_hub": "project",
    "bigquery": "project",
}
"""What the command makes each resource of."""


@click.command(context_settings=CONTEXT_SETTINGS)
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
    deleted again, and a refresh token that Octogen replaces. The API key and the login to Octogen's
    MCP are those of the environment. `octogen_dagster.diagnose` checks the resources of your code.

    Exit status: 0 all works, perhaps with warnings; 1 something does not work; 2 bad input.
    """
    from octogen_dagster.doctor.checks import diagnose, environment_resources
    from octogen_dagster.doctor.findings import Diagnosis, not_given

    hosts = [host for text in shops for host in text.split(",") if host.strip()]
    resources = environment_resources(shops=hosts, **settings)
    diagnosis = diagnose(**resources, listings=listings, exchange=exchange, timeout=timeout)
    missing = {
        not_given("", resource).message: f"not checked: give --{setting.replace('_', '-')}."
        for resource, setting in _SETTINGS.items()
        if not settings[setting]
    }
    said = [
        replace(each, message=missing.get(each.message, each.message))
        for each in diagnosis.findings
    ]
    diagnosis = Diagnosis(tuple(said))
    click.echo(json.dumps(diagnosis.as_dict(), indent=2) if as_json else diagnosis)
    if not diagnosis.ok:
        sys.exit(FAILED)
