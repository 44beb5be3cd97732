"""The commands of `octogen-dagster` by their words, such as ("bq", "subscribe")."""

from collections.abc import Iterator

import click

from octogen_dagster.cli.main import main


def _commands(
    command: click.Command, *words: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from _commands(inner, *words, name)


COMMANDS = dict(_commands(main))
