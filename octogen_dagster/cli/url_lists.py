"""The commands `octogen-dagster url-lists`: sets of product addresses that are kept at Octogen."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import IO, TYPE_CHECKING, Any

import click

from octogen_dagster.cli.errors import BAD_INPUT, FAILED, fail, reporting_errors
from octogen_dagster.cli.options import CONTEXT_SETTINGS, SECONDS
from octogen_dagster.cli.printing import DRY_RUN, time_text
from octogen_dagster.errors import MissingAPIKeyError, OctogenAPIError, OctogenError
from octogen_dagster.printable import count, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.url_lists import CoverageRejectedUrl, CoverageUrlList

SOME_REJECTED = 3
_MAX_SHOWN = 10


@click.group("url-lists", context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="octogen-dagster")
def url_lists() -> None:
    """Product addresses that Octogen looks for each day.

    A coverage URL list is shared over BigQuery with the products at its addresses. Exit status: 0
    done or dry run, 1 failed, 2 bad input, 3 Octogen rejected some of the URLs.
    """


def _connection(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that each command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--timeout", type=SECONDS, default=30.0, help="Seconds for each request."),
        click.option(
            "--base-url",
            envvar="OCTOGEN_BASE_URL",
            show_envvar=True,
            help="Base URL of the API.  [default: https://api.octogen.ai/v1, or at OCTOGEN_HOST]",
        ),
        click.option(
            "--api-key",
            help="API key. Prefer the environment, which other users cannot see.  "
            "[default: OCTOGEN_PLATFORM_API_KEY, then OCTO_API_KEY]",
        ),
    ):
        command = option(command)
    return command


_list_id = click.argument("url_list_id")
_apply = click.option(
    "--apply", is_flag=True, help="Make the change. Without it, only print what would be done."
)
_file = click.option(
    "--file",
    type=click.File(encoding="utf-8-sig"),
    help="File with a URL on each line, or - for standard input. Lines that begin with # are "
    "skipped.",
)
_url = click.option("--url", "inline", multiple=True, help="URL. Can be repeated.")


@url_lists.command("create", context_settings=CONTEXT_SETTINGS)
@click.option("--name", required=True, help="Name of the list, 1 to 80 characters.")
@_apply
@_connection
@reporting_errors
def create(*, name: str, apply: bool, as_json: bool, **connection: Any) -> None:
    """Create a list."""
    from octogen_dagster.api.url_lists import checked_name

    name = checked_name(name)
    if not apply:
        lines = [DRY_RUN, f"URL list {printable(name)} would be created."]
        _print({"applied": False, "action": "create", "name": name}, lines, as_json)
        return
    with _client(**connection) as client:
        created = client.create_coverage_url_list(name)
    _print({"applied": True} | _payload(created), _description(created), as_json)


@url_lists.command("list", context_settings=CONTEXT_SETTINGS)
@_connection
@reporting_errors
def list_command(*, as_json: bool, **connection: Any) -> None:
    """List all lists, newest first."""
    from octogen_dagster.api.url_lists import MAX_PAGE_SIZE, read_pages

    with _client(**connection) as client:
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


@url_lists.command("get", context_settings=CONTEXT_SETTINGS)
@_list_id
@_connection
@reporting_errors
def get(*, url_list_id: str, as_json: bool, **connection: Any) -> None:
    """Show a list: its status, its size and its last export."""
    with _client(**connection) as client:
        found = client.get_coverage_url_list(url_list_id)
    _print(_payload(found), _description(found), as_json)


@url_lists.command("urls", context_settings=CONTEXT_SETTINGS)
@_list_id
@click.option(
    "--limit", type=click.IntRange(0), default=0, help="Most URLs to print; 0 prints all."
)
@_connection
@reporting_errors
def urls(*, url_list_id: str, limit: int, as_json: bool, **connection: Any) -> None:
    """Print the URLs of a list, normalized.

    They come in the order of their insertion.
    """
    from octogen_dagster.api.url_lists import MAX_PAGE_SIZE, read_pages

    entries: list[dict[str, Any]] = []
    with _client(**connection) as client:
        pages = read_pages(
            lambda cursor: client.list_coverage_url_list_urls(
                url_list_id, cursor=cursor, limit=MAX_PAGE_SIZE
            ),
            f"The URLs of URL list {url_list_id!r}",
        )
        for page in pages:
            entries += [
                {
                    "url": each.url,
                    "normalizedUrl": each.normalized_url,
                    "addedAt": each.added_at and each.added_at.isoformat(),
                }
                for each in page.items
            ]
            if limit and len(entries) >= limit:
                del entries[limit:]
                break
    lines = [printable(each["normalizedUrl"]) for each in entries]
    _print({"items": entries, "count": len(entries)}, lines, as_json)


@url_lists.command("add-urls", context_settings=CONTEXT_SETTINGS)
@_list_id
@_file
@_url
@_apply
@_connection
@reporting_errors
def add_urls(**options: Any) -> None:
    """Add URLs to a list.

    One that it has already is no error.

    Exit status: 0 done or dry run, 1 failed, 2 bad input, 3 Octogen rejected some of the URLs.
    """
    _change("add", **options)


@url_lists.command("remove-urls", context_settings=CONTEXT_SETTINGS)
@_list_id
@_file
@_url
@_apply
@_connection
@reporting_errors
def remove_urls(**options: Any) -> None:
    """Remove URLs from a list.

    One that it does not have is no error.

    Exit status: 0 done or dry run, 1 failed, 2 bad input, 3 Octogen rejected some of the URLs.
    """
    _change("remove", **options)


@url_lists.command("contains", context_settings=CONTEXT_SETTINGS)
@_list_id
@_file
@_url
@_connection
@reporting_errors
def contains(
    *,
    url_list_id: str,
    file: IO[str] | None,
    inline: Sequence[str],
    as_json: bool,
    **connection: Any,
) -> None:
    """Say which URLs a list has.

    Which of them Octogen covers is in BigQuery.
    """
    requests = _requests(file, inline)
    with _client(**connection) as client:
        results = [
            each
            for some in requests
            for each in client.check_coverage_url_list_urls(url_list_id, some).results
        ]
    present = sum(each.present for each in results)
    payload = [
        {
            "url": each.url,
            "normalizedUrl": each.normalized_url,
            "present": each.present,
            "addedAt": each.added_at and each.added_at.isoformat(),
        }
        for each in results
    ]
    lines = [f"{'present' if each.present else 'absent '}  {each.url}" for each in results]
    lines.append(f"{present:,} of {count(len(results), 'URL')} in the list.")
    _print({"results": payload, "present": present}, map(printable, lines), as_json)


@url_lists.command("delete", context_settings=CONTEXT_SETTINGS)
@_list_id
@_apply
@click.option("--yes", is_flag=True, help="Do not ask. Needed where nobody can answer.")
@_connection
@reporting_errors
def delete(*, url_list_id: str, apply: bool, yes: bool, as_json: bool, **connection: Any) -> None:
    """Delete a list and its tables in BigQuery.

    It cannot be undone. In a terminal you are asked for the name of the list.
    """
    with _client(**connection) as client:
        found = client.get_coverage_url_list(url_list_id)
        name = printable(f"{found.name} ({found.url_list_id})")
        what = f"URL list {name} with {count(found.url_count, 'URL')} and its tables in BigQuery"
        if not apply:
            payload = {"applied": False, "action": "delete"} | _payload(found)
            _print(payload, [DRY_RUN, f"{what} would be deleted, which cannot be undone."], as_json)
            return
        if not yes:
            _ask(f"{what} will be deleted, which cannot be undone.", found.name)
        deleted = client.delete_coverage_url_list(url_list_id)
    lines = [f"URL list {name} is being deleted: {printable(deleted.status)}."]
    _print({"applied": True} | _payload(deleted), lines, as_json)


def _ask(what: str, name: str) -> None:
    """Have the name of a list typed, or raise."""
    if not sys.stdin.isatty():
        raise ValueError(f"{what} Nobody can be asked here: add --yes if that is meant.")
    click.echo(what, err=True)
    if click.prompt("Type its name to go on", default="", show_default=False, err=True) != name:
        raise ValueError("The name is another one: nothing was deleted.")


@contextlib.contextmanager
def _client(
    *, api_key: str | None, base_url: str | None, timeout: float
) -> Iterator[BlockingClient]:
    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.credentials import ApiKey, configured_base_url
    from octogen_dagster.api.service import Service

    try:
        key = ApiKey(api_key)
    except MissingAPIKeyError as error:
        fail(f"Error: {error}", BAD_INPUT)
    service = Service(api_key=key, base_url=base_url or configured_base_url(), timeout=timeout)
    with BlockingClient(service) as client:
        yield client


def _requests(file: IO[str] | None, inline: Sequence[str]) -> list[list[str]]:
    """Return the URLs of each request, each URL once."""
    from octogen_dagster.api.url_lists import MAX_URL_CHARACTERS, MAX_URLS_PER_REQUEST

    try:
        lines = file.read().splitlines() if file else []
    except UnicodeDecodeError as error:
        raise ValueError(f"--file is not a text in UTF-8 ({error.reason}): convert it.") from None
    read = [line.strip() for line in lines]
    given = [*(url.strip() for url in inline), *(url for url in read if not url.startswith("#"))]
    found = [url for url in dict.fromkeys(given) if url]
    if not found:
        raise ValueError("There are no URLs: name them by --url, or a file of them by --file.")
    if too_long := [url for url in found if len(url) > MAX_URL_CHARACTERS]:
        raise ValueError(
            f"{count(len(too_long), 'URL')} of more than {MAX_URL_CHARACTERS:,} characters: leave "
            f"them out, since Octogen refuses the whole request. The first one begins with "
            f"{too_long[0][:80]!r}."
        )
    size = MAX_URLS_PER_REQUEST
    return [found[begin : begin + size] for begin in range(0, len(found), size)]


def _change(
    action: str,
    *,
    url_list_id: str,
    file: IO[str] | None,
    inline: Sequence[str],
    apply: bool,
    as_json: bool,
    **connection: Any,
) -> None:
    """Add or remove URLs in requests of 1,000, each of which is applied by itself."""
    requests = _requests(file, inline)
    number = sum(map(len, requests))
    if not apply:
        urls_in_requests = f"{count(number, 'URL')} in {count(len(requests), 'request')}"
        done = {"add": "added to", "remove": "removed from"}[action]
        payload = {
            "applied": False,
            "action": action,
            "urlListId": url_list_id,
            "urls": number,
            "requests": len(requests),
        }
        would = f"{urls_in_requests} would be {done} URL list {printable(url_list_id)}."
        _print(payload, [DRY_RUN, would], as_json)
        return
    accepted, completed = 0, 0
    rejected: list[CoverageRejectedUrl] = []
    url_count: int | None = None
    failure: OctogenError | None = None
    with _client(**connection) as client:
        send = (
            client.add_coverage_url_list_urls
            if action == "add"
            else client.remove_coverage_url_list_urls
        )
        try:
            for some in requests:
                answer = send(url_list_id, some)
                completed += 1
                accepted += len(answer.accepted)
                rejected += answer.rejected
                url_count = answer.url_count
        except OctogenError as error:
            failure = error
        except (KeyboardInterrupt, SystemExit):
            click.echo(_progress(completed, len(requests)), err=True)
            raise
    payload = {
        "applied": completed > 0,
        "action": action,
        "urlListId": url_list_id,
        "accepted": accepted,
        "rejected": [
            {"url": each.url, "code": each.code, "message": each.message} for each in rejected
        ],
        "urlCount": url_count,
        "completedRequests": completed,
        "totalRequests": len(requests),
    }
    if failure:
        payload["error"] = _error(failure)
    lines = []
    if completed:
        changed = {"add": "Added", "remove": "Removed"}[action]
        lines = [f"{changed} {count(accepted, 'URL')}: the list has {url_count:,} now."]
        lines += _rejections(rejected)
    _print(payload, lines, as_json)
    if failure:
        fail(f"Error: {failure}\n{_progress(completed, len(requests))}", FAILED)
    if rejected:
        sys.exit(SOME_REJECTED)


def _progress(completed: int, total: int) -> str:
    if not completed:
        return "No request was completed. The same command can be run again: that is harmless."
    return (
        f"{completed:,} of {count(total, 'request')} were completed and stay applied. Run the same "
        "command again for the rest: what is done already is no error."
    )


def _error(error: OctogenError) -> dict[str, Any]:
    """Describe an error for JSON."""
    detail = getattr(error, "detail", None)
    return {
        "detail": detail if isinstance(detail, str) else None,
        "statusCode": error.status_code if isinstance(error, OctogenAPIError) else None,
        "message": str(error),
    }


def _rejections(rejected: Sequence[CoverageRejectedUrl]) -> Iterator[str]:
    if not rejected:
        return
    yield f"Octogen rejected {count(len(rejected), 'URL')}:"
    for each in rejected[:_MAX_SHOWN]:
        yield printable(f"    {each.url}: {each.code}, {each.message}")
    if len(rejected) > _MAX_SHOWN:
        yield f"    and {len(rejected) - _MAX_SHOWN:,} more, which --json prints"


def _payload(url_list: CoverageUrlList) -> dict[str, Any]:
    return url_list.model_dump(mode="json", by_alias=True)


def _description(url_list: CoverageUrlList) -> Iterator[str]:
    """Describe a list in lines."""
    shared = url_list.big_query
    size = count(url_list.url_count, "URL")
    yield printable(f"{url_list.url_list_id}: {url_list.name}, {url_list.status}, {size}")
    if shared is None:
        yield "BigQuery: not yet, which takes about a minute"
        return
    yield printable(f"Listing: {shared.exchange_id}/{shared.listing_id}")
    yield printable(f"Dataset: {shared.shared_dataset_id}, view {shared.view_id}")
    rows = "" if shared.last_row_count is None else f", {count(shared.last_row_count, 'row')}"
    yield f"Last export: {_last_export(url_list) or 'none yet, they are daily'}{rows}"
    yield f"Readers: {shared.reader_count:,}"


def _last_export(url_list: CoverageUrlList) -> str:
    exported_at = url_list.big_query and url_list.big_query.last_exported_at
    return f"{time_text(exported_at)} UTC" if exported_at else ""


def _print(payload: Mapping[str, Any], lines: Iterable[str], as_json: bool) -> None:
    """Print a result as JSON or as lines."""
    if as_json:
        click.echo(json.dumps(payload, indent=2))
        return
    for line in lines:
        click.echo(line)
