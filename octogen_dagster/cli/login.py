"""The command `octogen-dagster login`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from octogen_dagster.cli.errors import FAILED, fail, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, FILE, SECONDS, mcp_option, mcp_url_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command(context_settings=CONTEXT_SETTINGS)
@mcp_url_option()
@mcp_option(
    "--mcp-client-id-file",
    "File to write the id of the OAuth client to.",
    type=FILE,
    required=True,
)
@mcp_option(
    "--mcp-refresh-token-file", "File to write the refresh token to.", type=FILE, required=True
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port on 127.0.0.1 that the browser returns to; 0 for a free one.",
)
@click.option("--open/--no-open", "open_browser", default=True, help="Open the browser.")
@click.option("--timeout", type=SECONDS, default=300.0, help="Seconds that you have to log in.")
@click.version_option(package_name="octogen-dagster")
@reporting_errors
def login(
    *,
    mcp_url: str | None,
    mcp_client_id_file: Path,
    mcp_refresh_token_file: Path,
    port: int,
    open_browser: bool,
    timeout: float,
) -> None:
    """Log in to Octogen's MCP in a browser.

    Then `octogen-dagster bq autosubscribe` and Dagster need no person. Registers a public OAuth
    client, and writes its id and a refresh token to two files that only you can read. One login
    is enough. Exit status: 0 logged in, 1 failed, 2 bad input.
    """
    import webbrowser

    from octogen_dagster.control_plane.login import login as log_in
    from octogen_dagster.control_plane.login_files import LoginFiles
    from octogen_dagster.control_plane.session import DEFAULT_MCP_URL
    from octogen_dagster.control_plane.token_endpoint import DEFAULT_TOKEN_ENDPOINT

    def show(url: str) -> None:
        click.echo(f"Log in on this page: {url}")
        if open_browser:
            webbrowser.open(url)

    try:
        token_endpoint = log_in(
            LoginFiles.at(mcp_refresh_token_file, mcp_client_id_file),
            show=show,
            mcp_url=mcp_url or DEFAULT_MCP_URL,
            port=port,
            timeout=timeout,
        )
    except OSError as error:
        fail(
            f"Error: port {port} cannot be listened on: {error.strerror}. Choose another one with "
            "--port.",
            FAILED,
        )
    environment = {
        "OCTOGEN_MCP_CLIENT_ID_FILE": str(mcp_client_id_file.resolve()),
        "OCTOGEN_MCP_REFRESH_TOKEN_FILE": str(mcp_refresh_token_file.resolve()),
    }
    if mcp_url:
        environment["OCTOGEN_MCP_URL"] = mcp_url
    if token_endpoint != DEFAULT_TOKEN_ENDPOINT:
        environment["OCTOGEN_MCP_TOKEN_ENDPOINT"] = token_endpoint
    click.echo("Logged in. Set this for `octogen-dagster bq autosubscribe`:")
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
