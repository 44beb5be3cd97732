"""Options that several commands have."""

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
_ALTERNATIVES = (
    {"mcp_token_command", "mcp_refresh_token", "mcp_refresh_token_file", "mcp_access_token"},
    {"mcp_client_id", "mcp_client_id_file"},
)


def mcp_option(name: str, help_text: str, **settings: Any) -> Callable[..., Any]:
    """Return an option that may also be set in the environment.

    Args:
        name: The name of the option; `--mcp-url` is read from `OCTOGEN_MCP_URL`.
        help_text: The help of the option.
        settings: Further arguments of `click.option`.
    """
    variable = "OCTOGEN_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, help=help_text, **settings)


def mcp_url_option() -> Callable[..., Any]:
    """Return the option `--mcp-url`."""
    return mcp_option(
        "--mcp-url", "URL of Octogen's MCP server.  [default: https://mcp.octogen.ai/mcp/]"
    )


def access_token_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `access_tokens` for the options of the current command.

    The command line wins over the environment: if one of several alternatives is given on the
    command line, the others are left out.

    Args:
        options: The values of the options, by their names with `mcp_`.
    """
    context = click.get_current_context()
    given = {
        name
        for name in options
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    ignored: set[str] = set()
    for alternatives in _ALTERNATIVES:
        if given & alternatives:
            ignored |= alternatives - given
    return {
        name.removeprefix("mcp_"): value for name, value in options.items() if name not in ignored
    }
