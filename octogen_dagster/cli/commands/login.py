"""The command `octogen-dagster login`."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from octogen_dagster.cli.errors import FAILED, fail, reporting_errors
from octogen_dagster.cli.options import (
    CONTEXT_SETTINGS,
    FILE,
    SECONDS,
    Command,
    mcp_option,
    mcp_url_option,
)
from octogen_dagster.errors import OctogenError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from octogen_dagster.control_plane.login import Login
    from octogen_dagster.control_plane.login_places import LoginPlaces

_OTHER_LOGINS = (
    "OCTOGEN_MCP_TOKEN_COMMAND",
    "OCTOGEN_MCP_CLIENT_ID",
    "OCTOGEN_MCP_REFRESH_TOKEN",
    "OCTOGEN_MCP_ACCESS_TOKEN",
)
"""Environment variables that take precedence over the login files."""


@click.command(cls=Command, context_settings=CONTEXT_SETTINGS)
@mcp_url_option()
@click.option(
    "--resource",
    help="OAuth resource for the MCP server. For example, https://mcp.octogen.ai implies the MCP "
    "URL https://mcp.octogen.ai/mcp/. [default: from --mcp-url]",
)
@click.option(
    "--authkit-domain",
    help="Authorization server URL, such as https://auth.octogen.ai. It must match the URL that "
    "the MCP server reports.  [default: from the MCP server]",
)
@mcp_option(
    "--mcp-client-id-file",
    "File for the OAuth client id.  [default: ~/.config/octogen/mcp.client-id]",
    synonym="--client-id-file",
    type=FILE,
)
@mcp_option(
    "--mcp-refresh-token-file",
    "File for the refresh token.  [default: ~/.config/octogen/mcp.refresh]",
    synonym="--refresh-token-file",
    type=FILE,
)
@mcp_option(
    "--mcp-token-uri",
    "URI (s3://..., gs://... or az://...) or path for the refresh token. The client id and the "
    "redirect URI are stored beside the refresh token. Use this option instead of local files for "
    "processes that do not share a disk.",
    synonym="--token-uri",
)
@mcp_option(
    "--mcp-redirect-uri-file",
    "File for the client's registered redirect URI.  "
    "[default: ~/.config/octogen/mcp.redirect-uri, or no file if a client id file is set]",
    synonym="--redirect-uri-file",
    type=FILE,
)
@mcp_option(
    "--mcp-client-id",
    "Registered OAuth client id. Requires --redirect-uri.  "
    "[default: the client from the last login, or a new client]",
    synonym="--client-id",
)
@mcp_option(
    "--mcp-redirect-uri",
    "Redirect URI on this machine.  [default: http://127.0.0.1:PORT/callback]",
    synonym="--redirect-uri",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    help="Port on 127.0.0.1 that receives the redirect. Use 0 for a free port.",
)
@click.option(
    "--scope", default="openid profile email offline_access", help="OAuth scopes to request."
)
@click.option(
    "--open/--no-open", "open_browser", default=True, help="Open the login page in a browser."
)
@click.option(
    "--verify/--no-verify", default=True, help="Test the new refresh token by exchanging it once."
)
@click.option(
    "--timeout", type=SECONDS, default=300.0, help="Time limit for the login, in seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reporting_errors
def login(
    *,
    mcp_url: str | None,
    resource: str | None,
    authkit_domain: str | None,
    mcp_redirect_uri: str | None,
    port: int,
    scope: str,
    open_browser: bool,
    verify: bool,
    timeout: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Log in to Octogen's MCP in a browser.

    You only need to log in once. `octogen-dagster bq autosubscribe` and Dagster reuse the login.
    The command registers a public OAuth client, and stores the client id and a refresh token in
    files that only you can read.

    The exit status is 0 on success, 1 on failure and 2 for bad input.
    """
    import webbrowser

    from octogen_dagster.control_plane.login import login as log_in
    from octogen_dagster.control_plane.login_places import LoginPlaces

    def show(url: str) -> None:
        click.echo(f"Open this page to log in: {url}", err=as_json)
        if open_browser:
            webbrowser.open(url)

    server = _mcp_url(mcp_url, resource)
    token_uri = options["mcp_token_uri"]
    places = LoginPlaces.at(
        options["mcp_refresh_token_file"],
        options["mcp_client_id_file"],
        options["mcp_redirect_uri_file"],
        token_uri=token_uri,
    )
    redirect_uri = mcp_redirect_uri or f"http://127.0.0.1:{port}/callback"
    with _advising(redirect_uri):
        done = log_in(
            places,
            show=show,
            mcp_url=server,
            redirect_uri=redirect_uri,
            client_id=_client_id(options["mcp_client_id"], mcp_redirect_uri),
            resource=resource,
            authorization_server=authkit_domain,
            scope=scope,
            timeout=timeout,
        )
    if verify:
        _exchange(places, done.token_endpoint)
    if as_json:
        _print_json(places, token_uri, done, resource or server, verify)
    else:
        _print_settings(places, token_uri, done, server)


@contextmanager
def _advising(redirect_uri: str) -> Iterator[None]:
    """Add advice to login errors. For example, suggest another port."""
    try:
        yield
    except OSError as error:
        fail(
            f"Error: cannot listen on port {urlsplit(redirect_uri).port}: {error.strerror}. "
            "Choose another port with --port.",
            FAILED,
        )
    except OctogenError as error:
        if os.environ.get("OCTOGEN_MCP_ACCESS_TOKEN"):
            error.args = (
                f"{error} You do not need to log in, because OCTOGEN_MCP_ACCESS_TOKEN already "
                "contains a token, such as the sandbox's token.",
            )
        raise


def _mcp_url(mcp_url: str | None, resource: str | None) -> str:
    """Return the MCP URL. `--resource` takes precedence over a URL from the environment."""
    from octogen_dagster.api.credentials import host_mcp_url

    if not resource:
        return mcp_url or host_mcp_url()
    source = click.get_current_context().get_parameter_source("mcp_url")
    if mcp_url and source is ParameterSource.COMMANDLINE:
        if not f"{mcp_url}/".startswith(f"{resource.rstrip('/')}/"):
            raise ValueError(
                f"--mcp-url {mcp_url} does not start with --resource {resource}. Remove one of the "
                "two options."
            )
        return mcp_url
    has_path = urlsplit(resource).path.strip("/")
    return resource if has_path else f"{resource.rstrip('/')}/mcp/"


def _client_id(client_id: str | None, redirect_uri: str | None) -> str | None:
    """Return the id of the OAuth client to reuse, or None for the default client.

    If the environment sets a client id without a redirect URI, the client belongs to another login
    and is ignored.
    """
    if redirect_uri or not client_id:
        return client_id
    source = click.get_current_context().get_parameter_source("mcp_client_id")
    if source is ParameterSource.COMMANDLINE:
        raise ValueError(
            "--client-id requires the client's registered redirect URI. Pass it as --redirect-uri."
        )
    return None


def _exchange(places: LoginPlaces, token_endpoint: str) -> None:
    """Test the stored login and the token endpoint by exchanging the new refresh token."""
    from octogen_dagster.background import Deadline
    from octogen_dagster.control_plane.refresh import Refresh
    from octogen_dagster.control_plane.tokens import DEFAULT_RETRY

    exchange = Refresh(places.refresh_token, places.client_id, token_endpoint)
    exchange(Deadline.after(DEFAULT_RETRY.deadline))


def _print_settings(places: LoginPlaces, token_uri: str | None, done: Login, mcp_url: str) -> None:
    """Print the shell commands (`export` and `unset`) that activate the login."""
    from octogen_dagster.api.credentials import host_mcp_url, host_token_endpoint
    from octogen_dagster.control_plane.login_places import LoginPlaces

    settings: dict[str, str] = {}
    default = LoginPlaces.at()
    paths = {
        "OCTOGEN_MCP_CLIENT_ID_FILE": (places.client_id, default.client_id),
        "OCTOGEN_MCP_REFRESH_TOKEN_FILE": (places.refresh_token, default.refresh_token),
    }
    if token_uri:
        settings["OCTOGEN_MCP_TOKEN_URI"] = token_uri
    elif any(place != usual or name in os.environ for name, (place, usual) in paths.items()):
        settings |= {name: os.path.abspath(place.place) for name, (place, _) in paths.items()}
    addresses = {
        "OCTOGEN_MCP_URL": (mcp_url, host_mcp_url()),
        "OCTOGEN_MCP_TOKEN_ENDPOINT": (done.token_endpoint, host_token_endpoint()),
    }
    for name, (url, usual) in addresses.items():
        if url != usual or name in os.environ:
            settings[name] = url
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in settings.items()
        if value != os.environ.get(name)
    ]
    lines += [f"unset {name}" for name in _OTHER_LOGINS if os.environ.get(name)]
    readers = "`octogen-dagster bq autosubscribe` and Dagster"
    if lines:
        click.echo("\n".join([f"Logged in. To use this login with {readers}, run:", *lines]))
    else:
        click.echo(f"Logged in. {readers} use this login automatically.")


def _print_json(
    places: LoginPlaces, token_uri: str | None, done: Login, resource: str, verified: bool
) -> None:
    result = {
        "client_id": done.client_id,
        "client_id_file": places.client_id.place,
        "redirect_uri": done.redirect_uri,
        "redirect_uri_file": places.redirect_uri and places.redirect_uri.place,
        "refresh_token_file": places.refresh_token.place,
        "resource": resource,
        "token_endpoint": done.token_endpoint,
        "verified": verified,
        **({"token_uri": token_uri} if token_uri else {}),
    }
    click.echo(json.dumps(result, indent=2))
