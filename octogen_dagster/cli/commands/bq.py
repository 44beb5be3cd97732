"""The commands `octogen-dagster bq subscribe` and `octogen-dagster bq autosubscribe`."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import FAILED, reporting_errors
from octogen_dagster.cli.options import (
    CONTEXT_SETTINGS,
    DRY_RUN,
    FILE,
    SECONDS,
    Group,
    access_token_settings,
    mcp_option,
    mcp_url_option,
)
from octogen_dagster.printable import printable

if TYPE_CHECKING:
    from octogen_dagster.sharing.autosubscribe import AutosubscribeResult, CatalogOutcome
    from octogen_dagster.sharing.names import SubscriptionPlan


@click.group(cls=Group, context_settings=CONTEXT_SETTINGS)
def bq() -> None:
    """Subscribe to catalogs that Octogen shares in BigQuery."""


@bq.command(context_settings=CONTEXT_SETTINGS)
@click.option("--listing", required=True, help="Listing resource name.")
@click.option("--project", required=True, help="Google Cloud project for the linked dataset.")
@click.option("--dataset", help="Linked dataset id.  [default: octogen_<listing id>]")
@click.option("--location", help="Linked dataset location.  [default: the listing's location]")
@click.option(
    "--friendly-name", help="Linked dataset display name.  [default: Octogen <dataset id>]"
)
@click.option(
    "--apply",
    is_flag=True,
    help="Create the subscription. Without this flag, the command only prints the plan.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reporting_errors
def subscribe(
    *,
    listing: str,
    project: str,
    dataset: str | None,
    location: str | None,
    friendly_name: str | None,
    apply: bool,
    as_json: bool,
) -> None:
    """Subscribe to one Octogen listing.

    The command creates a linked BigQuery dataset. It uses Google Application Default Credentials.

    The exit status is 0 on success or for a dry run, 1 on failure, 2 for bad input and 3 if access
    has not been granted yet.
    """
    from octogen_dagster.sharing.hub import AnalyticsHub
    from octogen_dagster.sharing.names import plan_subscription
    from octogen_dagster.sharing.subscribe import subscribe as run_plan

    plan = plan_subscription(listing, project, dataset, location, friendly_name)
    if not apply:
        _print_plan(plan, as_json)
        return
    with AnalyticsHub() as hub:
        result = run_plan(hub, plan)
    if as_json:
        _print_json({"applied": True} | dataclasses.asdict(result))
        return
    done = "Already subscribed" if result.already_subscribed else "Subscribed"
    click.echo(f"{done}: {result.linked_project}.{result.linked_dataset} ({result.state})")
    click.echo(f"Try: {result.sample_query}")


def _print_plan(plan: SubscriptionPlan, as_json: bool) -> None:
    from octogen_dagster.sharing.names import sample_query

    query = sample_query(plan.project, plan.dataset_id)
    if as_json:
        _print_json(
            {
                "applied": False,
                "listing": str(plan.listing),
                "linked_project": plan.project,
                "linked_dataset": plan.dataset_id,
                "location": plan.location,
                "sample_query": query,
            }
        )
        return
    click.echo(DRY_RUN)
    click.echo(f"Listing: {plan.listing}")
    click.echo(f"Linked dataset: {plan.project}.{plan.dataset_id} in {plan.location}")
    click.echo(f"Then try: {query}")


def _catalog_keys(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> list[str]:
    return [key.strip() for text in texts for key in text.split(",") if key.strip()]


@bq.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--project",
    "--subscriber-project-id",
    required=True,
    help="Google Cloud project for the linked datasets.",
)
@click.option(
    "--principal",
    "--subscriber-principal",
    required=True,
    help="IAM principal to subscribe as, such as serviceAccount:reader@….iam.gserviceaccount.com.",
)
@click.option(
    "--catalog",
    "catalogs",
    multiple=True,
    callback=_catalog_keys,
    help="Catalog key to subscribe to. Repeat the option or separate keys with commas.  "
    "[default: all]",
)
@click.option("--friendly-name", help="Display name of new linked datasets.")
@mcp_url_option()
@mcp_option(
    "--mcp-token-command", "Command that prints an access token. It is executed without a shell."
)
@mcp_option("--mcp-client-id", "OAuth client id for the refresh token.")
@mcp_option("--mcp-client-id-file", "File that contains the OAuth client id.", type=FILE)
@mcp_option(
    "--mcp-refresh-token",
    "Refresh token. Prefer --mcp-refresh-token-file, because replacement tokens are then saved.",
)
@mcp_option(
    "--mcp-refresh-token-file",
    "File that contains the refresh token. Replacement tokens are written to this file.",
    type=FILE,
)
@mcp_option(
    "--mcp-token-uri",
    "Location of the login stored with `octogen-dagster login --token-uri`: a URI (s3://..., "
    "gs://... or az://...) or a path.",
)
@mcp_option(
    "--mcp-token-endpoint",
    "Token endpoint URL.  [default: https://auth.octogen.ai/oauth2/token; OCTOGEN_HOST replaces "
    "octogen.ai]",
)
@mcp_option("--mcp-access-token", "Access token, valid for a few minutes.")
@click.option(
    "--timeout",
    type=SECONDS,
    default=30.0,
    help="Time limit for each request to Octogen, in seconds. A token refresh can exceed this "
    "limit and take up to 120 seconds.",
)
@click.option(
    "--apply",
    is_flag=True,
    help="Register and subscribe. Without this flag, the command only prints the plan.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reporting_errors
def autosubscribe(
    *,
    project: str,
    principal: str,
    catalogs: list[str],
    friendly_name: str | None,
    mcp_url: str | None,
    timeout: float,
    apply: bool,
    as_json: bool,
    **credentials: Any,
) -> None:
    """Subscribe to all listings that Octogen shares with you.

    The command registers the subscriber if necessary, subscribes to pending listings and asks
    Octogen to verify the subscriptions. You can run it repeatedly, for example from cron.

    Requests to Google use Application Default Credentials. Requests to Octogen use the first of
    these logins that is set: token command, token URI, refresh token, access token, files written
    by `octogen-dagster login`.

    The exit status is 0 on success or for a dry run, 1 on failure or if a catalog has an error, and
    2 for bad input.
    """
    from octogen_dagster.api.credentials import host_mcp_url
    from octogen_dagster.control_plane.token_settings import access_tokens
    from octogen_dagster.control_plane.tokens import DEFAULT_RETRY
    from octogen_dagster.control_plane.tools import OctogenMCP
    from octogen_dagster.sharing.autosubscribe import autosubscribe as run_pass
    from octogen_dagster.sharing.hub import AnalyticsHub

    settings = access_token_settings(credentials)
    access_token = access_tokens(**settings, timeout=timeout)
    deadline = max(timeout, DEFAULT_RETRY.deadline)
    mcp_url = mcp_url or host_mcp_url()
    if not (apply or as_json):
        click.echo(DRY_RUN)
    with (
        OctogenMCP(access_token, mcp_url, timeout=timeout, deadline=deadline) as control_plane,
        AnalyticsHub() as hub,
    ):
        result = run_pass(
            control_plane,
            hub,
            project=project,
            principal=principal,
            catalogs=catalogs,
            friendly_name=friendly_name,
            apply=apply,
            report=(lambda _: None) if as_json else _print_outcome,
        )
    if as_json:
        _print_json(result.as_dict())
    else:
        _print_summary(result)
    if "error" in result.summary:
        sys.exit(FAILED)


def _print_outcome(outcome: CatalogOutcome) -> None:
    dataset = f", dataset {outcome.linked_dataset}" if outcome.linked_dataset else ""
    catalog = printable(outcome.catalog_key or "?")
    click.echo(f"{catalog}: {outcome.action.replace('_', ' ')}{printable(dataset)}")
    if outcome.message:
        click.echo(f"    {printable(outcome.message)}")


def _print_summary(result: AutosubscribeResult) -> None:
    counts = [f"{count} {action.replace('_', ' ')}" for action, count in result.summary.items()]
    click.echo(f"Catalogs: {', '.join(counts) or 'none'}.")
    if result.would_register_subscriber:
        click.echo("The subscriber would be registered.")
    else:
        state = "was registered" if result.registered_subscriber else "is registered"
        click.echo(f"The subscriber {state} as {printable(str(result.subscriber_id))}.")


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))
