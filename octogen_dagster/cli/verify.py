"""The command `octogen-dagster verify`: is what the package believes of the service true?"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.api.spending import usd
from octogen_dagster.cli.errors import FAILED, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS
from octogen_dagster.printable import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.api.spending import Prices
    from octogen_dagster.verify.answers import Question


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
    Nothing is changed and nothing is sent but these questions, to the configured host only, and
    with --google to Google. The report names no key, organisation, catalog or product unless you
    ask for --details.

    Exit status: 0 all that was asked holds; 1 something differs, or it failed; 2 bad
    input.
    """
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.service import Service as Connection
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.sharing.names import checked_project
    from octogen_dagster.validation import require_extras
    from octogen_dagster.verify.answers import Report, ask
    from octogen_dagster.verify.service import QUESTIONS, Service

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
    connection = Connection(spending=spending)
    plan = _plan(connection.base_url, QUESTIONS, spending.prices)
    if asks_google:
        # Only here, because it imports Dagster.
        from octogen_dagster.verify import google

        plan += _plan("Octogen's MCP and Google, which are free", google.QUESTIONS, spending.prices)
    limit = f"no more than {usd(max_usd)} is spent, whatever is asked"
    together = usd(sum(question.cost_usd(spending.prices) for question in QUESTIONS))
    click.echo(f"{plan}All of them cost at most {together}; {limit}.\n", err=as_json)
    if sys.stdin.isatty() and not click.confirm("Ask?", err=as_json):
        return
    with BlockingClient(connection) as client:
        service = Service(client, host)
        service.require_shop()
        answers = tuple(ask(QUESTIONS, service))
    if asks_google:
        answers += tuple(google.ask_google(project))
    report = Report(answers, spending.spent_usd, max_usd)
    if as_json:
        click.echo(json.dumps(report.as_dict(details=details), indent=2))
    else:
        click.echo(printable_lines(report.as_text(details=details)))
    if not report.ok:
        sys.exit(FAILED)


def _plan(whom: str, questions: Sequence[Question[Any]], prices: Prices) -> str:
    """Say what will be asked, and the most that each question can cost."""
    width = max(len(question.name) for question in questions)
    lines = [f"{len(questions)} questions to {whom}:", ""]
    for question in questions:
        cost = question.cost_usd(prices)
        price = f"up to {usd(cost)}" if cost else "free"
        lines.append(f"  {question.name:<{width}}  {price:<12}  {question.belief}")
    return "\n".join([*lines, "", ""])
