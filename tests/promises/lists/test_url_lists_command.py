"""`octogen-dagster url-lists`: what a person reads, and is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from octogen_dagster import OctogenResource
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import POLL_SECONDS, RawServer, http
from tests.messages import Golden
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
    "newField": [1],
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


def test_a_list_until_its_deletion(
    golden: Golden, run: Run, sandbox: Sandbox, octogen: OctogenResource
) -> None:
    assert run(sandbox, "list").output == "No URL lists.\n"
    list_id = octogen.create_coverage_url_list("q3").url_list_id
    as_json = json.loads(run(sandbox, "delete", list_id, "--json").output)
    assert (as_json["applied"], as_json["action"], as_json["name"]) == (False, "delete", "q3")
    planned = run(sandbox, "delete", list_id).output
    assert planned.splitlines() == [
        "Dry run: nothing is changed. To apply this plan, add --apply.",
        f"URL list q3 ({list_id}) with 0 URLs and its tables in BigQuery would be deleted. "
        "This cannot be undone.",
    ]
    unasked = run(sandbox, "delete", list_id, "--apply")
    assert (unasked.exit_code, unasked.stdout) == (2, "")
    golden("errors", unasked.stderr)
    deleted = run(sandbox, "delete", list_id, "--apply", "--yes").output
    golden("errors", deleted)


def test_lists_are_described_in_lines(run: Run) -> None:
    new = A_LIST | {"bigQuery": SHARED | {"lastExportedAt": None, "lastRowCount": None}}
    with RawServer(lambda _: http(200, {"items": [A_LIST, new], "nextCursor": None})) as server:
        listed = run(server, "list").output
        with_json = run(server, "list", "--json").output
    assert listed.splitlines() == [
        r"cul_1  active  5,445  2026-08-06 04:31:12 UTC  q3 \x1b[31m",
        r"cul_1  active  5,445                           q3 \x1b[31m",
    ]
    assert r"q3 \u001b[31m" in with_json
    in_utc = SHARED | {"lastExportedAt": "2026-08-06T04:31:12.500000Z"}
    assert json.loads(with_json)["items"][0] == A_LIST | {"bigQuery": in_utc}


def test_an_error_is_one_that_a_person_can_act_on(
    golden: Golden, run: Run, sandbox: Sandbox
) -> None:
    refused = run(sandbox, "delete", "cul_none")
    assert (refused.exit_code, refused.stdout) == (1, "")
    golden("errors", refused.stderr)
    assert "Traceback" not in refused.stderr
    assert "Traceback" in run(sandbox, "delete", "cul_none", "--debug").stderr


def test_a_loop_of_pages_ends(run: Run) -> None:
    page = {"items": [A_LIST], "nextCursor": "again"}
    with RawServer(lambda _: http(200, page)) as server:
        listed = run(server, "list")
    assert (listed.exit_code, listed.stdout) == (1, "")
    assert "page 2 has the same next cursor" in listed.stderr
    assert "loop" in listed.stderr
    assert len(server.received) == 2


def test_a_missing_key_is_bad_input() -> None:
    listed = CliRunner().invoke(main, ["url-lists", "list", "--json"])
    assert (listed.exit_code, listed.stdout) == (2, "")
    assert "OCTOGEN_PLATFORM_API_KEY" in listed.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "status"), [("q3", 0), ("q4", 2), ("", 2)])
def test_a_deletion_is_asked_for_by_the_name(
    golden: Golden,
    sandbox: Sandbox,
    octogen: OctogenResource,
    tmp_path: Path,
    typed: str,
    status: int,
) -> None:
    list_id = octogen.create_coverage_url_list("q3").url_list_id
    terminal, stdin = os.openpty()
    program = "from octogen_dagster.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "url-lists", "delete", list_id, "--apply", "--json"],
        env=os.environ | sandbox.environment,
        cwd=tmp_path,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(terminal, f"{typed}\n".encode())
    output, complaints = process.communicate(timeout=POLL_SECONDS)
    os.close(terminal)
    os.close(stdin)
    assert process.returncode == status, complaints
    golden("errors", complaints)
    assert bool(output) == (not status)
    assert ("Nothing was deleted" in complaints) == bool(status)
    assert bool(octogen.list_coverage_url_lists().items) == bool(status)
