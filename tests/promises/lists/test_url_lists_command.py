"""`octogen-dagster url-lists`: what a person reads, and what stops a command in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from octogen_dagster import OctogenResource
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY, POLL_SECONDS, RawServer, Received, hanging, http
from tests.results import octogen_at

URL = "https://a.example/1"
SHARED = {
    "exchangeId": "catalogs_prod",
    "listingId": "coverage_cul_1_v1",
    "sharedDatasetId": "coverage_share_cul_1_v1",
    "viewId": "products_current_v1",
    "lastExportedAt": "2026-08-06T06:31:12.5+02:00",
    "lastRowCount": 1128,
    "readerCount": 1,
}
A_LIST = {
    "urlListId": "cul_1",
    "name": "q3 \x1b[31m",
    "status": "active",
    "urlCount": 5445,
    "bigQuery": SHARED,
    "createdAt": "2026-08-05T20:14:03Z",
    "updatedAt": "2026-08-05T20:14:03Z",
}
OUTCOME = {
    "accepted": [{"url": URL, "normalizedUrl": URL}],
    "rejected": [],
    "urlCount": 7,
    "requestId": "r-1",
}

Run = Callable[..., Result]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs=1, products=1, url_list_seconds=0) as running:
        yield running


@pytest.fixture
def octogen(sandbox: Sandbox) -> OctogenResource:
    return octogen_at(sandbox)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """A function that runs a command with the address and the key of a server."""
    monkeypatch.chdir(tmp_path)  # where no .env is

    def run(server: Sandbox | RawServer, *arguments: str) -> Result:
        monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", server.api_key)
        return CliRunner().invoke(main, ["url-lists", *arguments])

    return run


def test_a_list_from_its_creation_to_its_deletion(run: Run, sandbox: Sandbox) -> None:
    assert run(sandbox, "list").output == "No URL lists.\n"
    planned = run(sandbox, "create", "--name", "q3").output
    assert planned.splitlines() == [
        "Dry run: nothing is changed. Add --apply to make the changes.",
        "URL list q3 would be created.",
    ]
    assert sandbox.requests[1:] == []
    created = run(sandbox, "create", "--name", "q3", "--apply").output
    list_id = created.partition(":")[0]
    assert created.splitlines() == [
        f"{list_id}: q3, provisioning, 0 URLs",
        "BigQuery: not yet, which takes about a minute",
    ]
    urls = [part for each in range(12) for part in ("--url", f"no address {each}")]
    planned = run(sandbox, "add-urls", list_id, "--url", URL, *urls).output
    assert planned.splitlines()[1] == (
        f"13 URLs in 1 request would be added to URL list {list_id}."
    )
    added = run(sandbox, "add-urls", list_id, "--url", URL, *urls, "--apply")
    assert added.exit_code == 3
    first, second, *others, last = added.stdout.splitlines()
    assert first == "Added 1 URL: the list has 1 now."
    assert second == "Octogen rejected 12 URLs:"
    assert others[0].startswith("    no address 0: invalid_url, ")
    assert (len(others), last) == (10, "    and 2 more, which --json prints")
    assert run(sandbox, "urls", list_id).output == f"{URL}\n"
    checked = run(sandbox, "contains", list_id, "--url", f"{URL}/", "--url", "https://b.c").output
    assert checked.splitlines() == [
        f"present  {URL}/",
        "absent   https://b.c",
        "1 of 2 URLs in the list.",
    ]
    removed = run(sandbox, "remove-urls", list_id, "--url", URL, "--apply")
    assert (removed.exit_code, removed.output) == (0, "Removed 1 URL: the list has 0 now.\n")
    planned = run(sandbox, "delete", list_id).output
    assert planned.splitlines()[1] == (
        f"URL list q3 ({list_id}) with 0 URLs and its tables in BigQuery would be deleted, "
        "which cannot be undone."
    )
    unasked = run(sandbox, "delete", list_id, "--apply")
    assert (unasked.exit_code, unasked.stdout) == (2, "")
    assert "Nobody can be asked here: add --yes" in unasked.stderr
    deleted = run(sandbox, "delete", list_id, "--apply", "--yes").output
    assert deleted == f"URL list q3 ({list_id}) is being deleted: delete_pending.\n"


def test_a_list_is_described(run: Run) -> None:
    with RawServer(lambda _: http(200, A_LIST)) as server:
        shown = run(server, "get", "cul_1").output
    assert shown.splitlines() == [
        r"cul_1: q3 \x1b[31m, active, 5,445 URLs",
        "Listing: catalogs_prod/coverage_cul_1_v1",
        "Dataset: coverage_share_cul_1_v1, view products_current_v1",
        "Last export: 2026-08-06 04:31:12 UTC, 1,128 rows",
        "Readers: 1",
    ]
    new = A_LIST | {"bigQuery": SHARED | {"lastExportedAt": None, "lastRowCount": None}}
    with RawServer(lambda _: http(200, {"items": [A_LIST, new], "nextCursor": None})) as server:
        listed = run(server, "list").output
        with_json = run(server, "list", "--json").output
    assert listed.splitlines() == [
        r"cul_1  active  5,445  2026-08-06 04:31:12 UTC  q3 \x1b[31m",
        r"cul_1  active  5,445                           q3 \x1b[31m",
    ]
    assert r"q3 \u001b[31m" in with_json
    with RawServer(lambda _: http(200, new)) as server:
        assert "Last export: none yet, they are daily\n" in run(server, "get", "cul_1").output


def test_an_error_is_one_that_a_person_can_act_on(run: Run, sandbox: Sandbox) -> None:
    refused = run(sandbox, "get", "cul_none")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: URL list 'cul_none' failed: 404 url_list_not_found")
    assert "Traceback" not in refused.stderr
    assert "Traceback" in run(sandbox, "get", "cul_none", "--debug").stderr


def test_a_key_of_the_command_line_is_in_no_error(run: Run) -> None:
    def repeat(request: Received) -> list[bytes]:
        return http(401, {"detail": f"no key {request.headers['authorization']}"})

    other = f"{KEY[:-4]}AAAA"
    with RawServer(repeat) as server:
        refused = run(server, "list", "--api-key", other, "--debug")
    assert "no key Bearer" in refused.stderr
    assert other not in refused.stderr
    assert server.received[0].headers["authorization"] == f"Bearer {other}"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00", "--file is not a text in UTF-8"),
        (b"# nothing\n\n", "There are no URLs"),
    ],
)
def test_a_file_without_urls_is_bad_input(
    run: Run, sandbox: Sandbox, tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "urls.txt").write_bytes(content)
    refused = run(sandbox, "contains", "cul_1", "--file", "urls.txt")
    assert refused.exit_code == 2
    assert says in refused.stderr
    assert sandbox.requests == []


def test_a_file_may_begin_with_a_byte_order_mark(
    run: Run, sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path
) -> None:
    list_id = octogen.create_coverage_url_list("q3").url_list_id
    (tmp_path / "urls.txt").write_text(f"\ufeff{URL}\r\n", encoding="utf-8")
    run(sandbox, "add-urls", list_id, "--file", "urls.txt", "--apply")
    [member] = octogen.list_coverage_url_list_urls(list_id).items
    assert member.url == URL


# Processes, for a terminal and for a signal.


def started(
    server: Sandbox | RawServer, folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    program = "from octogen_dagster.cli.main import main; main()"
    settings = {"OCTOGEN_BASE_URL": server.base_url, "OCTOGEN_PLATFORM_API_KEY": server.api_key}
    return subprocess.Popen(
        [sys.executable, "-c", program, "url-lists", *arguments],
        env=os.environ | settings,
        cwd=folder,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "status"), [("q3", 0), ("q4", 2), ("", 2)])
def test_a_deletion_is_asked_for_by_the_name(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path, typed: str, status: int
) -> None:
    list_id = octogen.create_coverage_url_list("q3").url_list_id
    terminal, stdin = os.openpty()
    process = started(sandbox, tmp_path, "delete", list_id, "--apply", "--json", stdin=stdin)
    os.write(terminal, f"{typed}\n".encode())
    output, complaints = process.communicate(timeout=POLL_SECONDS)
    os.close(terminal)
    os.close(stdin)
    assert process.returncode == status, complaints
    assert f"URL list q3 ({list_id}) with 0 URLs" in complaints
    assert "Type its name to go on" in complaints
    assert bool(output) == (not status)
    assert ("nothing was deleted" in complaints) == bool(status)
    assert bool(octogen.list_coverage_url_lists().items) == bool(status)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_many_requests_were_applied(
    tmp_path: Path, number: signal.Signals
) -> None:
    arrived = threading.Event()

    def respond(_: Received) -> Iterator[bytes]:
        if len(server.received) < 2:
            yield http(200, OUTCOME)[0]
        else:
            arrived.set()
            yield from hanging(lambda: server)

    (tmp_path / "urls.txt").write_text("\n".join(f"{URL}{each}" for each in range(2001)))
    arguments = ["add-urls", "cul_1", "--file", "urls.txt", "--apply"]
    with RawServer(respond) as server:
        process = started(server, tmp_path, *arguments)
        assert arrived.wait(POLL_SECONDS)
        process.send_signal(number)
        output, complaints = process.communicate(timeout=POLL_SECONDS)
    assert process.returncode == (1 if number == signal.SIGINT else 128 + signal.SIGTERM)
    assert output == ""
    assert "1 of 3 requests were completed and stay applied." in complaints
    assert "Traceback" not in complaints
