"""Options and text shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
FILE = click.Path(dir_okay=False, path_type=Path)
SECONDS = click.FloatRange(min=0, min_open=True)
DRY_RUN = "Dry run: nothing is changed. To apply this plan, add --apply."
"""The first line of a dry run's output."""
_LOGINS = {
    "mcp_token_command",
    "mcp_token_uri",
    "mcp_refresh_token",
    "mcp_refresh_token_file",
    "mcp_access_token",
}
_REPLACED_BY = {name: _LOGINS - {name} for name in _LOGINS} | {
    # An empty file starts with the refresh token.
    "mcp_refresh_token_file": _LOGINS - {"mcp_refresh_token_file", "mcp_refresh_token"},
    "mcp_token_uri": {*_LOGINS, "mcp_client_id", "mcp_client_id_file"}
    - {"mcp_token_uri", "mcp_refresh_token"},
    "mcp_client_id": {"mcp_client_id_file"},
    "mcp_client_id_file": {"mcp_client_id"},
}


class Command(click.Command):
    """A command that rejects empty option values, for example from unset shell variables."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command-line arguments."""
        values, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.get_params(ctx):
            given = values.get(parameter.name or "")
            texts = given if isinstance(given, list | tuple) else [given]
            if any(isinstance(text, str) and not text.strip(", ") for text in texts):
                message = "the value is empty. Pass a value, or omit the option."
                raise click.BadParameter(message, ctx, parameter)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group whose commands reject empty option values."""

    command_class = Command


def mcp_option(
    name: str, help_text: str, *, synonym: str | None = None, **settings: Any
) -> Callable[..., Any]:
    """Return an option and its environment variable, such as OCTOGEN_MCP_URL for `--mcp-url`."""
    variable = "OCTOGEN_" + name.removeprefix("--").replace("-", "_").upper()
    names = [name, synonym] if synonym else [name]
    return click.option(*names, envvar=variable, show_envvar=True, help=help_text, **settings)


def base_dir_option() -> Callable[..., Any]:
    return click.option(
        "--base-dir",
        required=True,
        envvar="OCTOGEN_SNAPSHOTS",
        show_envvar=True,
        help="Snapshot folder or bucket.",
    )


def mcp_url_option() -> Callable[..., Any]:
    return mcp_option(
        "--mcp-url",
        "URL of Octogen's MCP server.  [default: https://mcp.octogen.ai/mcp/; OCTOGEN_HOST "
        "replaces octogen.ai]",
    )


def access_token_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Convert the current command's options to arguments for `access_tokens`.

    An option on the command line takes precedence over all login settings in the environment.
    """
    context = click.get_current_context()
    given = {
        name
        for name, value in options.items()
        if value and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    replaced = set().union(*(_REPLACED_BY.get(name, set()) for name in given)) - given
    return {
        name.removeprefix("mcp_"): value for name, value in options.items() if name not in replaced
    }
