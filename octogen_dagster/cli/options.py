"""Options that several commands have."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
FILE = click.Path(dir_okay=False, path_type=Path)
SECONDS = click.FloatRange(min=0, min_open=True)
_LOGINS = {
    "mcp_token_command",
    "mcp_token_uri",
    "mcp_refresh_token",
    "mcp_refresh_token_file",
    "mcp_access_token",
}
_REPLACED_BY = {name: _LOGINS - {name} for name in _LOGINS} | {
    # The refresh token is what an empty place begins with.
    "mcp_refresh_token_file": _LOGINS - {"mcp_refresh_token_file", "mcp_refresh_token"},
    "mcp_token_uri": {*_LOGINS, "mcp_client_id", "mcp_client_id_file"}
    - {"mcp_token_uri", "mcp_refresh_token"},
    "mcp_client_id": {"mcp_client_id_file"},
    "mcp_client_id_file": {"mcp_client_id"},
}


class Command(click.Command):
    """A command that refuses empty values, such as that of a variable that is not set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments of the command line."""
        values, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.get_params(ctx):
            given = values.get(parameter.name or "")
            texts = given if isinstance(given, list | tuple) else [given]
            if any(isinstance(text, str) and not text.strip(", ") for text in texts):
                message = "it is empty. Give it a value, or leave it out."
                raise click.BadParameter(message, ctx, parameter)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def mcp_option(
    name: str, help_text: str, *, synonym: str | None = None, **settings: Any
) -> Callable[..., Any]:
    """Return an option that is also read from the environment, `--mcp-url` from OCTOGEN_MCP_URL."""
    variable = "OCTOGEN_" + name.removeprefix("--").replace("-", "_").upper()
    names = [name, synonym] if synonym else [name]
    return click.option(*names, envvar=variable, show_envvar=True, help=help_text, **settings)


def moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    """Parse a day or a time; without an offset it is in UTC."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 knows no Z
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{text!r} is not a time. Write a day as 2026-11-01, which is its beginning in UTC, or "
            "a time as 2026-11-01T06:00+01:00."
        ) from error


def _since(context: click.Context, parameter: click.Parameter, text: str) -> Any:
    """Parse how long ago, such as 7d or 12h, or a day or a time."""
    if ago := re.fullmatch(r"(\d{1,5})([dh])", text):
        unit = timedelta(days=1) if ago[2] == "d" else timedelta(hours=1)
        return datetime.now(timezone.utc) - int(ago[1]) * unit
    try:
        return moment(context, parameter, text)
    except click.BadParameter as error:
        raise click.BadParameter(
            f"{error.message} Or write how long ago it was, as 7d or 12h."
        ) from error


def since_option(default: str, help_text: str) -> Callable[..., Any]:
    return click.option("--since", metavar="TIME", callback=_since, default=default, help=help_text)


def base_dir_option() -> Callable[..., Any]:
    return click.option(
        "--base-dir",
        required=True,
        envvar="OCTOGEN_SNAPSHOTS",
        show_envvar=True,
        help="Folder or bucket of the snapshots.",
    )


def mcp_url_option() -> Callable[..., Any]:
    return mcp_option(
        "--mcp-url",
        "URL of Octogen's MCP server.  [default: https://mcp.octogen.ai/mcp/, or at OCTOGEN_HOST]",
    )


def access_token_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `access_tokens` for the options of the current command.

    What is given on the command line replaces its alternatives of the environment.
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
