"""The command `octogen-dagster doctor`: what works, what does not and what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from octogen_dagster.cli.errors import FAILED, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, SECONDS
from octogen_dagster.cli.project import Project
from octogen_dagster.printable import printable_lines

_OPTIONS = {
    "octogen": "shops",
    "io_manager": "base_dir",
    "control_plane": "principal",
    "analytics_hub": "project",
    "bigquery": "project",
}
"""The option that each resource is made of, by the argument of `diagnose`."""


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

    In a project of `dg`, the resources of its definitions are checked. What is given as an option
    is checked in their place; elsewhere, and for what the definitions lack, the environment holds
    too. The API key and the login to Octogen's MCP are those of the environment.

    Nothing is changed, except for one small file that is written where snapshots are stored and
    deleted again, an empty table that is made and dropped in each destination of tables, and a
    refresh token that Octogen replaces. `octogen_dagster.diagnose` checks the resources of any
    code.

    Exit status: 0 all works, perhaps with warnings; 1 something does not work; 2 bad input.
    """
    from octogen_dagster.doctor.checks import diagnose_all
    from octogen_dagster.doctor.findings import Diagnosis
    from octogen_dagster.doctor.resources import environment_resources, project_resources

    context = click.get_current_context()
    source = context.get_parameter_source
    typed = {
        name for name, option in _OPTIONS.items() if source(option) is ParameterSource.COMMANDLINE
    }
    hosts = [host for text in shops for host in text.split(",") if host.strip()]
    if (base_dir := settings["base_dir"]) and "://" not in base_dir:
        settings["base_dir"] = str(Path(base_dir).absolute())
    resources, findings = environment_resources(shops=hosts, **settings), []
    if project := context.find_object(Project):
        os.chdir(project.folder)  # as `dg` does, since folders of definitions may be relative
        found, finding = project_resources(*project)
        resources |= {name: each for name, each in found.items() if name not in typed}
        findings.append(finding)
    diagnosis = diagnose_all(resources, listings=listings, exchange=exchange, timeout=timeout)
    for each in diagnosis.findings:
        option = _OPTIONS.get(each.missing)
        if option and not settings.get(option):
            hint = f"not checked: give --{option.replace('_', '-')}."
            findings.append(replace(each, message=hint))
        else:
            findings.append(each)
    diagnosis = Diagnosis(tuple(findings))
    text = printable_lines(str(diagnosis))
    click.echo(json.dumps(diagnosis.as_dict(), indent=2) if as_json else text)
    if not diagnosis.ok:
        sys.exit(FAILED)
