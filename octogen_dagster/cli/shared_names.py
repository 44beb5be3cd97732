"""The commands under the names that they share with those of octogen-ai-sdk.

In an environment with both packages, the one that was installed last has the names. All commands
have names of their own too, as subcommands of `octogen-dagster`.
"""

from __future__ import annotations

import importlib.metadata

import click

from octogen_dagster.cli import bigquery
from octogen_dagster.cli import login as login_module

_NAMESAKE = "octogen-ai-sdk"


def subscribe() -> None:
    """Run `octogen-bq-subscribe`."""
    _warn_of_namesake("octogen-bq-subscribe", "bq subscribe")
    bigquery.subscribe()


def autosubscribe() -> None:
    """Run `octogen-bq-autosubscribe`."""
    _warn_of_namesake("octogen-bq-autosubscribe", "bq autosubscribe")
    bigquery.autosubscribe()


def login() -> None:
    """Run `octogen-mcp-login`."""
    _warn_of_namesake("octogen-mcp-login", "login")
    login_module.login()


def _warn_of_namesake(script: str, subcommand: str) -> None:
    try:
        scripts = importlib.metadata.distribution(_NAMESAKE).entry_points
    except importlib.metadata.PackageNotFoundError:
        return
    if any(entry.group == "console_scripts" and entry.name == script for entry in scripts):
        click.echo(
            f"{_NAMESAKE} has a command {script} too. The package that was installed last has the "
            f"name, which is octogen-dagster now. Use `octogen-dagster {subcommand}` instead.",
            err=True,
        )
