"""The command `octogen-dagster verify`: is what the package believes of the service true?"""

from __future__ import annotations

import json
import os
import sys
from itertools import chain
from typing import TYPE_CHECKING

import click

from octogen_dagster.cli.errors import FAILED, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS
from octogen_dagster.printable import printable_lines, usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from octogen_dagster.api.spending import Spending
    from octogen_dagster.doctor.verify.answers import Answer, Planned, Report


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--host", default=None, help="Host of a shop to ask about; a small one costs least.")
@click.option(
    "--max-usd", type=float, default=0.10, help="Dollars that the answers may cost together."
)
@click.option(
    "--google",
    "asks_google",
    is_flag=True,
    help="Also ask Octogen's MCP and Google about the listings that Octogen shares, in the project "
    "of GOOGLE_CLOUD_PROJECT.",
)
@click.option("--details", is_flag=True, help="Also show names of catalogs and products.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reporting_errors
def verify(
    *, host: str | None, max_usd: float, asks_google: bool, details: bool, as_json: bool
) -> None:
    """Ask the service whether what this package believes is true.

    It says first what it will ask and what that costs, and asks for your consent in a terminal.
    Each answer is shown as it comes; a question that is not answered in 30 seconds is left.
    Nothing is changed and nothing is sent but these questions, to the configured host only, and
    with --google to Google. The report names no key, organisation, catalog or product unless you
    ask for --details.

    Exit status: 0 all that was asked holds; 1 something differs, the key got no answer, or it
    failed; 2 bad input.
    """
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.retry import RetryPolicy
    from octogen_dagster.api.service import Service as Connection
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.doctor.verify.answers import QUESTION_TIMEOUT, planned
    from octogen_dagster.doctor.verify.questions import QUESTIONS, ask_service
    from octogen_dagster.doctor.verify.service import Service
    from octogen_dagster.sharing.names import checked_project
    from octogen_dagster.validation import require_extras

    if host is not None and not host.strip():
        raise ValueError("--host is empty: name the host of a shop, such as acme.com")
    try:
        spending = Spending(budget_usd=max_usd)
    except ValueError as error:
        raise ValueError(str(error).replace("budget_usd", "--max-usd")) from None
    project = os.environ.get("GOOGLE_CLOUD_PROJECT")
    if asks_google:
        require_extras("verify --google", "bigquery", "mcp")
        project = project and checked_project(project)
    connection = Connection(spending=spending, retry=RetryPolicy(deadline=QUESTION_TIMEOUT))
    with BlockingClient(connection) as client:
        service = Service(client, host)
        service.look()
        plan = [*planned(QUESTIONS, service, spending.prices)]
        click.echo(_plan_as_text(connection.base_url, plan), err=as_json)
        names = [question.name for question in QUESTIONS]
        asked: Iterator[Answer] = ask_service(service)
        if asks_google:
            # Only here, because it imports Dagster.
            from octogen_dagster.doctor.verify import google

            free = [*planned(google.QUESTIONS, None, spending.prices)]
            click.echo(_plan_as_text("Octogen's MCP and Google, which are free", free), err=as_json)
            names += [question.name for question in google.QUESTIONS]
            asked = chain(asked, google.ask_google(project))
        together = usd(sum(each.cost_usd for each in plan))
        limit = f"no more than {usd(max_usd)} is spent, whatever is asked"
        click.echo(f"All of them cost at most {together}; {limit}.\n", err=as_json)
        if sys.stdin.isatty() and not click.confirm("Ask?", err=as_json):
            return
        width = max(len(name) for name in names)
        report = _shown(asked, spending, width, details=details, as_json=as_json)
    if not report.ok:
        sys.exit(FAILED)


def _shown(
    asked: Iterator[Answer], spending: Spending, width: int, *, details: bool, as_json: bool
) -> Report:
    """Show each answer as it comes, and then what they cost, also if the rest is interrupted."""
    from octogen_dagster.doctor.verify.answers import Report

    answers: list[Answer] = []
    try:
        for answer in asked:
            answers.append(answer)
            click.echo(printable_lines(answer.as_text(width, details=details)), err=as_json)
    finally:
        report = Report(tuple(answers), spending.spent_usd, spending.budget_usd or 0.0)
        click.echo(f"\n{report.summary(details=details)}", err=as_json)
        if as_json:
            click.echo(json.dumps(report.as_dict(details=details), indent=2))
    return report


def _plan_as_text(whom: str, plan: Sequence[Planned]) -> str:
    """Say what will be asked, and the most that each question can cost."""
    width = max(len(each.question.name) for each in plan)
    lines = [f"{len(plan)} questions to {whom}:", ""]
    for question, cost, left_out in plan:
        price = "left out" if left_out else f"up to {usd(cost)}" if cost else "free"
        lines.append(f"  {question.name:<{width}}  {price:<12}  {left_out or question.belief}")
    return "\n".join([*lines, ""])
