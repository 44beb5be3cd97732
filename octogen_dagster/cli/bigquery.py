"""The command lines `octogen-bq-subscribe`, `octogen-bq-autosubscribe` and `octogen-mcp-login`.

Exit statuses: 0 done, 1 failed, 2 bad input, 3 access to the listing is still pending.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from octogen_dagster.errors import OctogenBigQueryAccessPendingError, OctogenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from octogen_dagster.api.retry import RetryPolicy
    from octogen_dagster.sharing.autosubscribe import AutosubscribeResult, CatalogOutcome
    from octogen_dagster.sharing.subscription_plan import SubscriptionPlan

_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
_FILE = click.Path(dir_okay=False, path_type=Path)
_SECONDS = click.FloatRange(min=0, min_open=True)
_LOGINS = {
    "mcp_token_command",
    "mcp_refresh_token",
    "mcp_refresh_token_file",
    "mcp_access_token",
}
_CLIENT_IDS = {"mcp_client_id", "mcp_client_id_file"}
_DRY_RUN = "Dry run: nothing is changed; --apply does it."


def _explained(command: Callable[..., None]) -> Callable[..., None]:
    """Let an error be one line on stderr and an exit status."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        # What this library logs on failure, the error that follows says.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        try:
            with _ended_by_sigterm():
                command(**options)
        except OctogenBigQueryAccessPendingError as error:
            _end(f"Not yet: {error}", 3)
        except ValueError as error:
            _end(f"Error: {error}", 2)
        except OctogenError as error:
            _end(f"Error: {error}", 1)

    return run


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process as Ctrl-C does, so that a new refresh token is stored first."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(message: str, status: int) -> None:
    click.echo(message, err=True)
    sys.exit(status)


@click.command(context_settings=_CONTEXT)
@click.option("--listing", required=True, help="The listing's resource name.")
@click.option("--project", required=True, help="Your project, where the linked dataset goes.")
@click.option("--dataset", help="Id of the linked dataset.  [default: octogen_<listing id>]")
@click.option("--location", help="Location of the linked dataset.  [default: the listing's]")
@click.option("--friendly-name", help="Its display name.  [default: Octogen <dataset id>]")
@click.option("--apply", is_flag=True, help="Subscribe; without it, say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.version_option(package_name="octogen-dagster")
@_explained
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
    """Subscribe a Google Cloud project to an Octogen listing, as a linked BigQuery dataset.

    Uses Google Application Default Credentials. Exit status: 0 done or dry run, 1 failed, 2 bad
    input, 3 Octogen's grant has not arrived yet.
    """
    from octogen_dagster.sharing.analytics_hub import AnalyticsHub
    from octogen_dagster.sharing.subscribe import Subscriptions
    from octogen_dagster.sharing.subscription_plan import plan_subscription

    plan = plan_subscription(listing, project, dataset, location, friendly_name)
    if not apply:
        _print_plan(plan, as_json)
        return
    with AnalyticsHub() as hub:
        result = Subscriptions(hub).subscribe(plan)
    if as_json:
        _print_json({"applied": True} | asdict(result))
        return
    done = "Already subscribed" if result.already_subscribed else "Subscribed"
    click.echo(f"{done}: {result.linked_project}.{result.linked_dataset} ({result.state})")
    click.echo(f"Try: {result.sample_query}")


def _print_plan(plan: SubscriptionPlan, as_json: bool) -> None:
    from octogen_dagster.sharing.resource_names import sample_query

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
    click.echo(_DRY_RUN)
    click.echo(f"Listing: {plan.listing}")
    click.echo(f"Linked dataset: {plan.project}.{plan.dataset_id} in {plan.location}")
    click.echo(f"Then try: {query}")


def _keys(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> list[str]:
    return [key.strip() for text in texts for key in text.split(",") if key.strip()]


def _chosen(credentials: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `access_tokens`: what the command line says beats the environment."""
    context = click.get_current_context()
    given = {
        name
        for name in credentials
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    for alternatives in (_LOGINS, _CLIENT_IDS):
        if given & alternatives:
            credentials = {
                name: value
                for name, value in credentials.items()
                if name in given or name not in alternatives
            }
    return {name.removeprefix("mcp_"): value for name, value in credentials.items()}


def _mcp_option(name: str, help_text: str, **settings: Any) -> Callable[..., Any]:
    variable = "OCTOGEN_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, help=help_text, **settings)


@click.command(context_settings=_CONTEXT)
@click.option("--project", required=True, help="Your project, where the linked datasets go.")
@click.option(
    "--principal",
    required=True,
    help="The IAM principal that subscribes: serviceAccount:reader@….iam.gserviceaccount.com.",
)
@click.option(
    "--catalog",
    "catalogs",
    multiple=True,
    callback=_keys,
    help="Only this catalog; may be repeated, or be several with commas.  [default: all]",
)
@click.option("--friendly-name", help="Display name of new linked datasets.")
@_mcp_option("--mcp-url", "Octogen's MCP server.  [default: https://mcp.octogen.ai/mcp/]")
@_mcp_option("--mcp-token-command", "A command that prints an access token; no shell.")
@_mcp_option("--mcp-client-id", "The OAuth client of the refresh token.")
@_mcp_option("--mcp-client-id-file", "The file that holds its id.", type=_FILE)
@_mcp_option("--mcp-refresh-token", "A refresh token; a file is better.")
@_mcp_option(
    "--mcp-refresh-token-file",
    "The file that holds it; replacements are stored there.",
    type=_FILE,
)
@_mcp_option("--mcp-token-endpoint", "Where refresh tokens are sent.  [default: Octogen's]")
@_mcp_option("--mcp-access-token", "An access token; they live for minutes.")
@click.option("--timeout", type=_SECONDS, default=30.0, help="Seconds for each call of Octogen.")
@click.option("--apply", is_flag=True, help="Register and subscribe; without it, only say so.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.version_option(package_name="octogen-dagster")
@_explained
@click.pass_obj
def autosubscribe(
    retry: RetryPolicy | None,
    /,
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
    """Subscribe a Google Cloud project to every listing that Octogen shares with it; for cron.

    One pass that can be repeated: registers the subscriber if needed, subscribes to the listings
    that wait for it, and tells Octogen to look. Of several ways to log in to Octogen the token
    command counts first, then the refresh token, then the access token. Google Application
    Default Credentials subscribe. Exit status: 0 done or dry run, 1 failed or a catalog ended in
    an error, 2 bad input.
    """
    from octogen_dagster.control_plane.retry import DEFAULT_RETRY
    from octogen_dagster.control_plane.session import DEFAULT_MCP_URL
    from octogen_dagster.control_plane.tokens import access_tokens
    from octogen_dagster.control_plane.tools import OctogenMCP
    from octogen_dagster.sharing.analytics_hub import AnalyticsHub
    from octogen_dagster.sharing.autosubscribe import autosubscribe as one_pass
    from octogen_dagster.sharing.subscribe import Subscriptions

    retry = retry or DEFAULT_RETRY
    retry = dataclasses.replace(retry, deadline=max(timeout, retry.deadline))
    tokens = access_tokens(**_chosen(credentials), timeout=timeout, retry=retry)
    if not (apply or as_json):
        click.echo(_DRY_RUN)
    with (
        OctogenMCP(
            tokens, mcp_url or DEFAULT_MCP_URL, timeout=timeout, retry=retry
        ) as control_plane,
        AnalyticsHub() as hub,
    ):
        result = one_pass(
            control_plane,
            Subscriptions(hub).subscribe,
            project=project,
            principal=principal,
            catalogs=catalogs,
            friendly_name=friendly_name,
            apply=apply,
            report=None if as_json else _print_outcome,
        )
    if as_json:
        _print_json(result.as_dict())
    else:
        _print_summary(result)
    sys.exit(1 if "error" in result.summary else 0)


def _print_outcome(outcome: CatalogOutcome) -> None:
    dataset = f", dataset {outcome.linked_dataset}" if outcome.linked_dataset else ""
    click.echo(f"{outcome.catalog_key or '?'}: {outcome.action.replace('_', ' ')}{dataset}")
    if outcome.message:
        click.echo(f"    {outcome.message}")


def _print_summary(result: AutosubscribeResult) -> None:
    counts = [f"{count} {action.replace('_', ' ')}" for action, count in result.summary.items()]
    click.echo(f"Catalogs: {', '.join(counts) or 'none'}.")
    if result.would_register_subscriber:
        click.echo("The subscriber would be registered.")
    else:
        state = "has been registered" if result.registered_subscriber else "is registered"
        click.echo(f"The subscriber {state} as {result.subscriber_id}.")


@click.command(context_settings=_CONTEXT)
@_mcp_option("--mcp-url", "Octogen's MCP server.  [default: https://mcp.octogen.ai/mcp/]")
@_mcp_option(
    "--mcp-client-id-file", "Where the id of the OAuth client goes.", type=_FILE, required=True
)
@_mcp_option("--mcp-refresh-token-file", "Where the refresh token goes.", type=_FILE, required=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Where the browser comes back to, on 127.0.0.1; 0 for a free port.",
)
@click.option("--open/--no-open", "open_browser", default=True, help="Open the browser.")
@click.option("--timeout", type=_SECONDS, default=300.0, help="Seconds you have to log in.")
@click.version_option(package_name="octogen-dagster")
@_explained
def login(
    *,
    mcp_url: str | None,
    mcp_client_id_file: Path,
    mcp_refresh_token_file: Path,
    port: int,
    open_browser: bool,
    timeout: float,
) -> None:
    """Log in to Octogen's MCP in a browser, once; octogen-bq-autosubscribe then works by itself.

    Registers a public OAuth client and stores its id and a refresh token in two files that only
    you can read.
    """
    import webbrowser

    from octogen_dagster.control_plane.login import login as log_in
    from octogen_dagster.control_plane.secret_files import SecretFile
    from octogen_dagster.control_plane.session import DEFAULT_MCP_URL
    from octogen_dagster.control_plane.token_endpoint import DEFAULT_TOKEN_ENDPOINT

    def show(url: str) -> None:
        click.echo(f"Log in on this page: {url}")
        if open_browser:
            webbrowser.open(url)

    try:
        token_endpoint = log_in(
            refresh_token_file=SecretFile(mcp_refresh_token_file, "refresh token"),
            client_id_file=SecretFile(mcp_client_id_file, "client id"),
            show=show,
            mcp_url=mcp_url or DEFAULT_MCP_URL,
            port=port,
            timeout=timeout,
        )
    except OSError as error:
        _end(f"Error: port {port} cannot be listened on: {error.strerror}", 1)
        return
    click.echo("Logged in. For octogen-bq-autosubscribe:")
    environment = {
        "OCTOGEN_MCP_CLIENT_ID_FILE": str(mcp_client_id_file.resolve()),
        "OCTOGEN_MCP_REFRESH_TOKEN_FILE": str(mcp_refresh_token_file.resolve()),
    }
    if mcp_url:
        environment["OCTOGEN_MCP_URL"] = mcp_url
    if token_endpoint != DEFAULT_TOKEN_ENDPOINT:
        environment["OCTOGEN_MCP_TOKEN_ENDPOINT"] = token_endpoint
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))
