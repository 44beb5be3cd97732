"""Octogen's published command for URL lists and ours do the same in the same situation.

Each runs against a sandbox of its own in the same state, or a server with the same answers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner

from octogen_dagster import OctogenResource
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.cli.commands.url_lists import url_lists
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY, RawServer, http, in_turn
from tests.results import octogen_at

PUBLISHED = importlib.metadata.distribution("octogen-ai-sdk").entry_points["octogen-url-lists"]
URLS = [f"https://a.example/{each}" for each in range(250)]
A_LIST: dict[str, Any] = {
    "urlListId": "cul_1",
    "name": "q3",
    "status": "active",
    "urlCount": 1,
    "bigQuery": {
        "exchangeId": "catalogs_prod",
        "listingId": "coverage_cul_1_v1",
        "sharedDatasetId": "coverage_share_cul_1_v1",
        "viewId": "products_current_v1",
        "lastExportedAt": "2026-08-06T06:31:12.5Z",
        "lastRowCount": 1128,
        "readerCount": 1,
        "newField": [1],
    },
    "createdAt": "2026-08-05T20:14:03Z",
    "updatedAt": "2026-08-05T20:14:03.123456Z",
    "owner": "me",
}
_CHANGING = re.compile(r"cul_[0-9A-Z]{26}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


class Answer(NamedTuple):
    """The outcome of a program, without ids and times: status, output, complaints, requests."""

    status: int
    output: str
    complaints: str
    requests: list[Any]

    @property
    def json(self) -> Any:
        """What was printed, if anything was; an error without its words."""
        result = json.loads(self.output) if self.output else None
        if result and "error" in result:
            assert result["error"].pop("message")
        return result


Program = Callable[..., tuple[int, str, str]]
Both = Callable[..., tuple[Answer, Answer]]
Arrange = Callable[[OctogenResource], object]


@pytest.fixture
def programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Program, Program]:
    """The published program and ours, which return a status and what they print."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.001)

    def published(*arguments: str) -> tuple[int, str, str]:
        word, *others = arguments
        if base_url := os.environ.get("OCTOGEN_BASE_URL"):  # which it does not read itself
            others = ["--base-url", base_url, *others]
        try:
            status: int = PUBLISHED.load()([word, *others])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    def ours(*arguments: str) -> tuple[int, str, str]:
        stdin = sys.stdin.read() if isinstance(sys.stdin, io.StringIO) else None
        done = CliRunner().invoke(url_lists, arguments, input=stdin)
        return done.exit_code, done.stdout, done.stderr

    return published, ours


@pytest.fixture
def both(programs: tuple[Program, Program], monkeypatch: pytest.MonkeyPatch) -> Both:
    """A function that runs both programs, each with a sandbox of its own.

    `{id}` in an argument is the id of the list that was created first; `stdin` is what they read.
    """

    def run(arrange: Arrange, *arguments: str, stdin: str | None = None) -> tuple[Answer, Answer]:
        answers = []
        for program in programs:
            with Sandbox(catalogs=1, products=1, url_list_seconds=0) as sandbox:
                octogen = octogen_at(sandbox)
                arrange(octogen)
                lists = octogen.list_coverage_url_lists().items
                list_id = lists[-1].url_list_id if lists else "cul_none"
                before = len(sandbox.requests)
                word, *others = [each.replace("{id}", list_id) for each in arguments]
                if stdin is not None:
                    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
                monkeypatch.setenv("OCTOGEN_BASE_URL", sandbox.base_url)
                monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", sandbox.api_key)
                status, output, complaints = program(word, *others)
                requests = [
                    (each.method, _CHANGING.sub("…", each.path), each.body)
                    for each in sandbox.requests[before:]
                ]
            output = _CHANGING.sub("…", output)
            answers.append(Answer(status, output, _CHANGING.sub("…", complaints), requests))
        theirs, ours = answers
        return theirs, ours

    return run


@pytest.fixture
def answered(programs: tuple[Program, Program], monkeypatch: pytest.MonkeyPatch) -> Both:
    """A function that runs both programs, each with a server that has the same answers."""

    def run(answers: list[list[bytes]], *arguments: str) -> tuple[Answer, Answer]:
        found = []
        for program in programs:
            with RawServer(in_turn(*answers)) as server:
                monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
                monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
                status, output, complaints = program(*arguments)
            requests = [(each.method, each.target, each.body) for each in server.received]
            found.append(Answer(status, output, complaints, requests))
        theirs, ours = found
        return theirs, ours

    return run


def nothing(_: OctogenResource) -> None:
    """No list."""


def a_list(octogen: OctogenResource) -> None:
    """A list with 250 URLs."""
    created = octogen.create_coverage_url_list("q3")
    octogen.add_coverage_url_list_urls(created.url_list_id, URLS)


def five_lists(octogen: OctogenResource) -> None:
    for name in ("q3", "Größe", "b", "c", "d"):
        octogen.create_coverage_url_list(name)


def deleted(octogen: OctogenResource) -> None:
    a_list(octogen)
    [created] = octogen.list_coverage_url_lists().items
    octogen.delete_coverage_url_list(created.url_list_id)


CALLS: dict[str, tuple[Arrange, list[str]]] = {
    "list none": (nothing, ["list"]),
    "list": (five_lists, ["list"]),
    "would delete": (a_list, ["delete", "{id}"]),
    "delete": (a_list, ["delete", "{id}", "--apply", "--yes"]),
    "delete without an answer": (a_list, ["delete", "{id}", "--apply"]),
    "delete none": (nothing, ["delete", "cul_none", "--apply", "--yes"]),
    "no word": (nothing, ["purge"]),
}


@pytest.mark.parametrize(("arrange", "arguments"), CALLS.values(), ids=CALLS)
def test_each_command(both: Both, arrange: Arrange, arguments: list[str]) -> None:
    theirs, ours = both(arrange, *arguments, "--json")
    assert ours.status == theirs.status, ours.complaints
    assert ours.json == theirs.json
    assert bool(ours.complaints) == bool(theirs.complaints)
    assert ours.requests == theirs.requests
    if ours.json is None:
        assert ours.status in {1, 2}


def test_what_nobody_knows_is_printed_too(answered: Both) -> None:
    answer = http(200, {"items": [A_LIST], "nextCursor": None})
    theirs, ours = answered([answer], "list", "--json")
    assert ours.json == theirs.json
    assert "newField" in ours.output


# Where the two differ, each docstring says what the published one does.


def test_a_loop_of_pages_ends(
    programs: tuple[Program, Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published one reads for ever."""
    page = {"items": [A_LIST], "nextCursor": "again"}
    with RawServer(lambda _: http(200, page)) as server:
        monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)
        status, output, complaints = programs[1]("list")
    assert (status, output) == (1, "")
    assert "page 2 has the next cursor of an earlier page, so the pages loop" in complaints
    assert len(server.received) == 2


def test_a_missing_key_is_bad_input(
    programs: tuple[Program, Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OCTOGEN_PLATFORM_API_KEY", "OCTO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for program in programs:
        status, output, complaints = program("list", "--json")
        assert (status, output) == (2, "")
        assert "OCTOGEN_PLATFORM_API_KEY" in complaints


def published_words(monkeypatch: pytest.MonkeyPatch) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the published command's words."""
    caught: list[argparse.ArgumentParser] = []

    def capture(parser: argparse.ArgumentParser, *_: Any) -> None:
        caught.append(parser)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", capture)
    with pytest.raises(SystemExit):
        PUBLISHED.load()([])
    for action in caught[0]._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError


def test_its_words_have_the_options_of_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those of the connection, which it reads from the environment."""
    words = published_words(monkeypatch)
    for word, command in url_lists.commands.items():
        ours = {name: each for each in command.params for name in each.opts}
        for action in words[word]._actions:
            for name in action.option_strings:
                if name in {"-h", "--help", "--base-url", "--api-key", "--timeout"}:
                    continue
                option = ours[name]
                assert isinstance(option, click.Option), (word, name)
                assert option.is_flag == (action.nargs == 0), (word, name)
                assert option.required == action.required, (word, name)
                assert option.multiple == isinstance(action, argparse._AppendAction), (word, name)
                if not option.multiple:
                    assert option.to_info_dict()["default"] == action.default, (word, name)
