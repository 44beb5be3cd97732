"""The command `octogen-dagster`. Each module in `cli/commands/` contains a subcommand."""

from __future__ import annotations

import importlib
import pkgutil

import click

from octogen_dagster.cli import commands
from octogen_dagster.cli.options import CONTEXT_SETTINGS, Group
from octogen_dagster.cli.project import find_project, project_environment


class _CommandFolder(Group):
    """A command group that imports the modules of its commands on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__)
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(
            importlib.import_module(f"{commands.__name__}.{name}"), name
        )
        return command


@click.group(cls=_CommandFolder, context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="octogen-dagster")
@click.pass_context
def main(context: click.Context) -> None:
    """Work with Octogen product catalogs in Dagster.

    In a dg project, commands load the project's `.env` file.
    """
    context.obj = find_project()
    context.with_resource(project_environment(context.obj))
