"""The command `octogen-dagster doctor`: setup checks and suggested fixes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.cli.errors import FAILED, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, FILE, SECONDS, Command
from octogen_dagster.cli.project import Project
from octogen_dagster.printable import printable_lines, spent_text, usd

if TYPE_CHECKING:
    from octogen_dagster.doctor.findings import Finding
    from octogen_dagster.doctor.resources import Resources
    from octogen_dagster.doctor.service import Evidence, Service

_OPTIONS = {
    "octogen": "hosts",
    "io_manager": "base_dir",
    "control_plane": "principal",
    "analytics_hub": "project",
    "bigquery": "project",
}
"""The command-line option for each `diagnose` argument."""


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    envvar="OCTOGEN_SHOP_HOSTS",
    show_envvar=True,
    help="Shop host whose catalogs are checked. Repeat the option or separate hosts with commas.",
)
@click.option(
    "--base-dir",
    envvar="OCTOGEN_SNAPSHOTS",
    show_envvar=True,
    help="Snapshot folder or bucket.",
)
@click.option(
    "--project",
    envvar="GOOGLE_CLOUD_PROJECT",
    show_envvar=True,
    help="Google Cloud project for linked datasets and queries.",
)
@click.option(
    "--principal",
    envvar="OCTOGEN_SUBSCRIBER",
    show_envvar=True,
    help="IAM principal to subscribe as, such as serviceAccount:reader@….iam.gserviceaccount.com.",
)
@click.option(
    "--timeout",
    type=SECONDS,
    default=45.0,
    help="Time limit for the free checks, in seconds.",
)
@click.option(
    "--ask",
    "asks",
    is_flag=True,
    help="Also test Octogen's service with requests that Octogen charges for.",
)
@click.option("--max-usd", default=0.15, help="Spending limit for --ask, in US dollars.")
@click.option("--yes", is_flag=True, help="Skip the confirmation. Required without a terminal.")
@click.option(
    "--compare",
    type=FILE,
    help="JSON report from an earlier run with --ask, for comparison with this run.",
)
@click.option(
    "--details",
    is_flag=True,
    help="With --ask, also show the names of organizations, folders, projects and products.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reporting_errors
def doctor(
    *,
    hosts: Sequence[str],
    timeout: float,
    asks: bool,
    max_usd: float,
    yes: bool,
    compare: Path | None,
    details: bool,
    as_json: bool,
    **settings: str | None,
) -> None:
    """Check the setup and suggest fixes.

    In a dg project, the doctor checks the resources in the project's definitions. Options override
    the values in the definitions. If there is no project, or if a resource is missing, the doctor
    uses environment variables. The API key and the login to Octogen's MCP are read from the
    environment.

    By default, the doctor runs no searches or lookups. It writes a small file to the snapshot store
    and creates an empty table in each destination, then deletes both. Testing the login replaces
    the refresh token, because Octogen issues a new one with each use. The doctor changes nothing
    else.

    With --ask or --compare, the doctor also tests this package's assumptions about Octogen's
    service. It first shows the requests and their maximum cost, and then asks for confirmation.

    The exit status is 0 if no check failed (warnings are allowed), 1 for a failed or
    blocked check or a missing confirmation, and 2 for bad input.
    """
    from octogen_dagster.doctor.checks import setup_checks
    from octogen_dagster.doctor.findings import Diagnosis, anonymous, resolved, run_checks
    from octogen_dagster.doctor.service import Service

    before = _evidence_of(compare) if compare else None
    resources, project_findings = _resources(hosts, settings)
    octogen = next(iter(resources["octogen"].values()))
    asks = asks or compare is not None
    spending = _spending(octogen.spending.prices, max_usd if asks else None)
    checks = setup_checks(resources, timeout)
    shown: dict[str, list[Finding]] = {key: [] for key in ("Project", *checks, "Questions")}
    asked, is_complete = None, False

    def show(key: str, finding: Finding) -> None:
        option = _OPTIONS.get(finding.missing)
        if option and not settings.get(option):
            hint = f"not checked. Pass --{option.replace('_', '-')}."
            finding = replace(finding, message=hint)
        if not details:  # users share the service report
            finding = anonymous(key, finding) if asks else replace(finding, details="")
        shown[key].append(finding)
        click.echo(printable_lines(str(shown[key][-1])), err=as_json)

    try:
        for finding in project_findings:
            show("Project", finding)
        for key, finding in run_checks(checks, timeout):
            show(key, finding)
        if asks:
            asked = Service(replace(resolved(octogen).service(), spending=spending), before)
            for finding in _answers(asked, spending, yes=yes, as_json=as_json):
                show("Questions", finding)
        is_complete = True
    finally:  # also report if interrupted
        diagnosis = Diagnosis(tuple(chain.from_iterable(shown.values())))
        report = diagnosis.as_dict() | {"ok": diagnosis.ok and is_complete}
        if asked:
            spent, possibly = spending.spent_usd, spending.possibly_charged_usd
            possibly += spending.under_way_usd  # for questions that timed out
            report |= {"spent_usd": float(spent), "possibly_charged_usd": float(possibly)}
            report["evidence"] = asked.evidence()
            click.echo(f"\nSpent {spent_text(spent, possibly)} of {usd(max_usd)}.", err=as_json)
        if as_json:
            click.echo(json.dumps(report, indent=2))
    if not diagnosis.ok:
        sys.exit(FAILED)


def _spending(prices: Prices, max_usd: float | None) -> Spending:
    try:
        return Spending(prices, max_usd)
    except ValueError as error:
        raise ValueError(str(error).replace("budget_usd", "--max-usd")) from None


def _resources(
    hosts: Sequence[str], settings: dict[str, str | None]
) -> tuple[Resources, list[Finding]]:
    """Return the resources to check, and the findings about the dg project."""
    from octogen_dagster.doctor.resources import (
        environment_resources,
        home_findings,
        project_resources,
    )

    context = click.get_current_context()
    typed = {
        name
        for name, option in _OPTIONS.items()
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE
    }
    hosts = [host for text in hosts for host in text.split(",") if host.strip()]
    if (base_dir := settings["base_dir"]) and "://" not in base_dir:
        settings["base_dir"] = str(Path(base_dir).absolute())
    resources = environment_resources(hosts=hosts, **settings)
    project = context.find_object(Project)
    if not project:
        return resources, []
    os.chdir(project.folder)  # as dg does, because folders in definitions can be relative
    found, finding = project_resources(*project)
    if "octogen" in typed:  # other hosts, with the project's service
        named = {"catalog_source": resources["octogen"]["octogen"].catalog_source}
        for name, octogen in found.get("octogen", {}).items():
            found["octogen"][name] = octogen.model_copy(update=named)
    typed.discard("octogen")
    resources |= {name: each for name, each in found.items() if name not in typed}
    return resources, [finding, *home_findings()]


def _answers(
    service: Service, spending: Spending, *, yes: bool, as_json: bool
) -> Iterator[Finding]:
    """Print the planned requests with their maximum cost. After confirmation, send the requests."""
    from octogen_dagster.doctor.asking import ask, planned
    from octogen_dagster.doctor.findings import Finding
    from octogen_dagster.doctor.questions import QUESTIONS

    service.look()
    plan = [*planned(QUESTIONS, service, spending.prices)]
    width = max(len(each.subject) for each in QUESTIONS)
    click.echo(f"\n{len(plan)} questions to {service.service.base_url}:\n", err=as_json)
    for question, cost, skipped in plan:
        price = "skipped" if skipped else f"up to {usd(cost)}" if cost else "free"
        line = f"  {question.subject:<{width}}  {price:<12}  {skipped or question.belief}"
        click.echo(printable_lines(line), err=as_json)
    total, limit = usd(sum(each.cost_usd for each in plan)), usd(spending.budget_usd or 0)
    click.echo(f"\nMaximum cost: {total} (spending limit: {limit}).\n", err=as_json)
    if yes or (sys.stdin.isatty() and click.confirm("Continue?", err=as_json)):
        yield from ask(QUESTIONS, service)
    else:
        yield Finding("Questions", "failed", "not confirmed.", "Without a terminal, pass --yes.")


def _evidence_of(report: Path) -> Evidence:
    """Return the results stored in an earlier run's JSON report."""
    import msgspec

    from octogen_dagster.doctor.service import Evidence

    try:
        evidence = json.loads(report.read_text("utf-8"))["evidence"]
        return msgspec.convert(evidence, Evidence)
    except (OSError, ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise ValueError(
            f"--compare: {report} is not a readable report ({type(error).__name__}). Pass a "
            "report written with `octogen-dagster doctor --ask --json`."
        ) from None
