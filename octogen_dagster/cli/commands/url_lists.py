"""The commands `octogen-dagster url-lists list` and `octogen-dagster url-lists delete`."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import BAD_INPUT, fail, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, DRY_RUN, Group
from octogen_dagster.errors import MissingAPIKeyError
from octogen_dagster.printable import count, printable, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.url_lists import CoverageUrlList


@click.group("url-lists", cls=Group, context_settings=CONTEXT_SETTINGS)
def url_lists() -> None:
    """List and delete the URL lists that Octogen stores.

    The API key and OCTOGEN_BASE_URL are read from the environment. For other operations, use
    `octogen-url-lists` from the package octogen-ai-sdk.
    """


_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@url_lists.command("list", context_settings=CONTEXT_SETTINGS)
@_JSON
@reporting_errors
def list_command(*, as_json: bool) -> None:
    """List all URL lists, newest first."""
    from octogen_dagster.api.url_lists import MAX_PAGE_SIZE, read_pages

    with _client() as client:
        pages = read_pages(
            lambda cursor: client.list_coverage_url_lists(cursor=cursor, limit=MAX_PAGE_SIZE),
            "The list of URL lists",
        )
        found = [each for page in pages for each in page.items]
    rows = [
        (each.url_list_id, each.status, f"{each.url_count:,}", _last_export(each), each.name)
        for each in found
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [
        printable("  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip()) for row in rows
    ]
    _print({"items": [_payload(each) for each in found]}, lines or ["No URL lists."], as_json)


@url_lists.command("delete", context_settings=CONTEXT_SETTINGS)
@click.argument("url_list_id")
@click.option(
    "--apply",
    is_flag=True,
    help="Delete the list. Without this flag, the command only prints the plan.",
)
@click.option("--yes", is_flag=True, help="Skip the confirmation. Required without a terminal.")
@_JSON
@reporting_errors
def delete(*, url_list_id: str, apply: bool, yes: bool, as_json: bool) -> None:
    """Delete a URL list and its tables in BigQuery.

    This cannot be undone. In a terminal, the command asks you to type the list's name to confirm.
    """
    with _client() as client:
        found = client.get_coverage_url_list(url_list_id)
        name = printable(f"{found.name} ({found.url_list_id})")
        what = f"URL list {name} with {count(found.url_count, 'URL')} and its tables in BigQuery"
        if not apply:
            payload = {"applied": False, "action": "delete"} | _payload(found)
            _print(payload, [DRY_RUN, f"{what} would be deleted. This cannot be undone."], as_json)
            return
        if not yes:
            _confirm(f"{what} will be deleted. This cannot be undone.", found.name)
        deleted = client.delete_coverage_url_list(url_list_id)
    lines = [f"URL list {name} is being deleted: {printable(deleted.status)}."]
    _print({"applied": True} | _payload(deleted), lines, as_json)


def _confirm(what: str, name: str) -> None:
    """Ask the user to type the list's name. Raise an error if the typed name does not match."""
    if not sys.stdin.isatty():
        raise ValueError(f"{what} Without a terminal, confirm with --yes.")
    click.echo(what, err=True)
    if (
        click.prompt("Type the list's name to confirm", default="", show_default=False, err=True)
        != name
    ):
        raise ValueError("The name does not match. Nothing was deleted.")


@contextlib.contextmanager
def _client() -> Iterator[BlockingClient]:
    """Yield a client that is configured from the environment."""
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.credentials import ApiKey, configured_base_url
    from octogen_dagster.api.service import Service

    try:
        key = ApiKey(None)
    except MissingAPIKeyError as error:
        fail(f"Error: {error}", BAD_INPUT)
    with BlockingClient(Service(api_key=key, base_url=configured_base_url())) as client:
        yield client


def _payload(url_list: CoverageUrlList) -> dict[str, Any]:
    return url_list.model_dump(mode="json", by_alias=True)


def _last_export(url_list: CoverageUrlList) -> str:
    exported_at = url_list.big_query and url_list.big_query.last_exported_at
    return f"{time_text(exported_at)} UTC" if exported_at else ""


def _print(payload: Mapping[str, Any], lines: Iterable[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(payload, indent=2))
        return
    for line in lines:
        click.echo(line)
