"""`verify` asks the service whether what the package believes of it is true, for a known price."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, Received, http

HOST = "kumo.example"
QUESTIONS = [
    "generation",
    "account",
    "rate limit",
    "fields of a page",
    "unknown catalog",
    "repeated first page",
    "next page",
    "facet and its exclusion",
    "keywords as written",
    "unknown product",
    "without a key",
    "URL lists",
    "unit of the count",
    "time of indexing",
]
Answers = dict[str, dict[str, str]]


class Exchange(NamedTuple):
    """A request to the service and what it answered, which a deviation may change."""

    request: Received
    number: int
    """How many requests with this target came before."""
    status: int
    headers: dict[str, str]
    body: Any
    first: dict[str, Any] | None
    """The first page of the catalog, once it was requested before."""

    @property
    def sent(self) -> dict[str, Any]:
        sent: dict[str, Any] = self.request.json if self.request.body else {}
        return sent


Deviation = Callable[[Exchange], Exchange]


class Server(NamedTuple):
    base_url: str
    api_key: str


@pytest.fixture(scope="module", params=["current", "seed"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(catalogs={"kumo": 230}, generation=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def current() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"kumo": 230}) as running:
        yield running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs the command against a server."""

    def verify(server: Any, *arguments: str) -> Result:
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", server.api_key)
        monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
        result = CliRunner().invoke(main, ["verify", *arguments])
        assert server.api_key not in result.output
        return result

    return verify


def answers_of(result: Result) -> Answers:
    report = json.loads(result.stdout)
    assert [each["question"] for each in report["answers"]] == QUESTIONS
    return {each["question"]: each for each in report["answers"]}


class Deviating:
    """The sandbox, but for one deviation."""

    def __init__(self, sandbox: Sandbox, deviate: Deviation) -> None:
        self._sandbox = sandbox
        self._deviate = deviate
        self._seen = Counter[str]()
        self._first: dict[str, Any] | None = None

    def respond(self, request: Received) -> list[bytes]:
        number = self._seen[request.target]
        self._seen[request.target] += 1
        url = self._sandbox.base_url.removesuffix("/v1") + request.target
        kept = ("authorization", "content-type")
        answer = httpx.request(
            request.method,
            url,
            content=request.body,
            headers={name: value for name, value in request.headers.items() if name in kept},
        )
        headers = {
            name.replace("-", "_"): value
            for name, value in answer.headers.items()
            if name.startswith("x-")
        }
        seen = Exchange(request, number, answer.status_code, headers, answer.json(), self._first)
        is_page = request.target == "/v1/products/search" and answer.is_success
        if is_page and is_first(seen.sent):
            self._first = self._first or seen.body
        exchange = self._deviate(seen)
        return http(exchange.status, exchange.body, length=None, **exchange.headers)


def on(target: str, change: Deviation) -> Deviation:
    """A deviation of the answers to one operation."""
    return lambda seen: change(seen) if seen.request.target.startswith(f"/v1{target}") else seen


def searches(change: Deviation) -> Deviation:
    """A deviation of pages that were answered with a key."""
    return on("/products/search", lambda seen: change(seen) if seen.status == 200 else seen)


def body(change: Callable[[Any, dict[str, Any]], Any]) -> Deviation:
    """A deviation of the body of an answer, which `change` makes of it and of what was sent."""
    return lambda seen: seen._replace(body=change(seen.body, seen.sent))


def status(code: int, detail: str = "odd") -> Deviation:
    return lambda seen: seen._replace(status=code, body={"detail": detail})


def each_item(**fields: Any) -> Deviation:
    return body(lambda page, _: {**page, "items": [{**each, **fields} for each in page["items"]]})


def is_whole(sent: dict[str, Any]) -> bool:
    return not sent.keys() & {"q", "facets", "exclude_facets"} and sent.get("limit") == 100


def is_first(sent: dict[str, Any]) -> bool:
    return is_whole(sent) and "cursor" not in sent


def reversed_again(seen: Exchange) -> Exchange:
    if seen.first is None or not is_first(seen.sent):
        return seen
    return seen._replace(body={**seen.body, "items": seen.body["items"][::-1]})


def first_page_again(seen: Exchange) -> Exchange:
    """What a stale cursor gets."""
    if seen.first is None or "cursor" not in seen.sent:
        return seen
    return seen._replace(body={**seen.body, "items": seen.first["items"]})


def only_a_few(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    return {**page, "items": page["items"][:40]} if is_whole(sent) else page


def not_left_out(seen: Exchange) -> Exchange:
    if seen.first is None or "exclude_facets" not in seen.sent:
        return seen
    return seen._replace(body={**seen.body, "items": seen.first["items"]})


def understood(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    if "q" not in sent:
        return page
    facets = [{"name": "gender", "values": ["female"], "source": "generated"}]
    query = {**page["effectiveQuery"], "understood": True, "facets": facets}
    return {**page, "effectiveQuery": query}


def found_anyway(seen: Exchange) -> Exchange:
    if "octogen-verify" not in str(seen.sent.get("catalogs")):
        return seen
    item = {"uuid": "1", "productUrl": "https://elsewhere.example/1"}
    return seen._replace(body={**seen.body, "items": [item]})


def on_demand(seen: Exchange) -> Exchange:
    product = {"productUrl": "https://kumo.example/x", "title": "From its page"}
    return seen._replace(status=200, body={"product": product, "source": "on_demand"})


def moving(seen: Exchange) -> Exchange:
    catalogs = [
        {**each, "computedAt": f"2026-11-29T10:00:{seen.number:02}Z"}
        for each in seen.body["catalogs"]
    ]
    return seen._replace(body={**seen.body, "catalogs": catalogs})


def without_limits(seen: Exchange) -> Exchange:
    return seen._replace(headers={})


DEVIATIONS: list[tuple[str, str, Deviation]] = [
    ("generation", "404", on("/me", status(404))),
    (
        "account",
        "'merchant'",
        on("/me", body(lambda me, _: {**me, "organization": {"type": "merchant"}})),
    ),
    ("rate limit", "x-ratelimit-limit", without_limits),
    ("fields of a page", "models refuse", searches(each_item(currentPrice="cheap"))),
    ("fields of a page", "currentPrice", searches(each_item(currentPrice=None))),
    ("unknown catalog", "1 products", searches(found_anyway)),
    ("repeated first page", "of 100 products", searches(reversed_again)),
    ("next page", "100 of its 100", searches(first_page_again)),
    ("next page", "loop", searches(body(lambda page, _: {**page, "nextCursor": "again"}))),
    ("facet and its exclusion", "with the brand and without", searches(not_left_out)),
    ("keywords as written", "gender", searches(body(understood))),
    ("unknown product", "on_demand", on("/products/lookup", on_demand)),
    (
        "without a key",
        "a 500",
        on("/products/search", lambda seen: status(500)(seen) if seen.status == 401 else seen),
    ),
    (
        "URL lists",
        "without `items`",
        on("/coverage", lambda seen: seen._replace(status=200, body={"lists": []})),
    ),
    ("unit of the count", "fewer than are counted", searches(body(only_a_few))),
    ("time of indexing", "1 of 1 times moved", on("/domains", moving)),
]


def test_everything_that_is_asked_of_the_sandbox_holds(
    sandbox: Sandbox, run: Callable[..., Result]
) -> None:
    arguments = ["--host", HOST, "--max-usd", "1", "--json"]
    result = run(sandbox, *arguments)
    answers = answers_of(result)
    assert result.exit_code == 0, result.output
    not_asked = {name for name, each in answers.items() if each["verdict"] == "not asked"}
    of_the_current = {"account", "facet and its exclusion", "keywords as written", "URL lists"}
    is_current = "current" in answers["generation"]["seen"]
    assert not_asked == (set() if is_current else of_the_current)


@pytest.mark.parametrize(
    ("question", "seen", "deviate"),
    DEVIATIONS,
    ids=[f"{each[0]}: {each[1]}" for each in DEVIATIONS],
)
def test_a_service_that_breaks_a_belief_turns_its_answer(
    question: str, seen: str, deviate: Deviation, current: Sandbox, run: Callable[..., Result]
) -> None:
    with RawServer(Deviating(current, deviate).respond) as server:
        deviating = Server(server.base_url, current.api_key)
        result = run(deviating, "--host", HOST, "--max-usd", "1", "--json")
    answer = answers_of(result)[question]
    assert (answer["verdict"], result.exit_code) == ("differs", 1), answer
    assert seen in answer["seen"]
    assert answer["concerns"]


def test_url_lists_may_be_closed_to_an_organisation(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    closed = Deviating(current, on("/coverage", status(404, "Not Found")))
    with RawServer(closed.respond) as server:
        result = run(Server(server.base_url, current.api_key), "--host", HOST, "--json")
    answer = answers_of(result)["URL lists"]
    assert answer["verdict"] == "not asked"
    assert "not open to this organisation (404)" in answer["seen"]


def test_it_says_first_what_is_asked_and_what_it_may_cost(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    result = run(current, "--host", HOST)
    plan, _, report = result.output.partition("All of them cost at most $0.142")
    assert all(f"  {question}  " in plan for question in QUESTIONS)
    assert "holds" not in plan
    assert "no more than $0.10 is spent" in report
    assert "pasted into an issue" in report


def test_no_more_is_spent_than_allowed(current: Sandbox, run: Callable[..., Result]) -> None:
    begun = len(current.requests)
    result = run(current, "--host", HOST, "--max-usd", "0.03", "--json")
    charged = [
        each
        for each in current.requests[begun:]
        if each.status == 200 and each.path.endswith(("/search", "/lookup"))
    ]
    assert len(charged) == 2  # at $0.014
    answers = answers_of(result)
    assert answers["next page"]["verdict"] == "not asked"
    assert "raise it" in answers["next page"]["seen"]
    assert result.exit_code == 0


def test_the_report_names_nothing_of_the_organisation(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    arguments = ["--host", HOST, "--max-usd", "1"]
    for report in (run(current, *arguments), run(current, *arguments, "--json")):
        assert "kumo" not in report.output.lower()
    details = run(current, *arguments, "--details").output
    assert "Details: kumo" in details
    assert "may name your catalogs and products" in details


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-usd", "0"], "--max-usd must be above 0 dollars, not 0.0"),
        (["--max-usd", "inf"], "--max-usd must be above 0 dollars, not inf"),
        (["--max-usd", "nan"], "--max-usd must be above 0 dollars, not nan"),
        (["--host", " "], "--host is empty"),
        (["--host", "elsewhere.example"], "Shop 'elsewhere.example' is not covered by Octogen"),
    ],
)
def test_bad_input_is_asked_nothing(
    arguments: list[str], message: str, current: Sandbox, run: Callable[..., Result]
) -> None:
    begun = len(current.requests)
    result = run(current, *arguments)
    assert (result.exit_code, message in result.output) == (2, True)
    charged = ("/products/search", "/products/lookup")
    assert not [each for each in current.requests[begun:] if each.path.endswith(charged)]


def test_without_a_shop_what_needs_one_is_not_asked(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    answers = answers_of(run(current, "--max-usd", "1", "--json"))
    for question in ("unit of the count", "time of indexing"):
        assert answers[question]["verdict"] == "not asked"
        assert "give --host" in answers[question]["seen"]


def test_a_refused_key_is_told_and_nothing_else(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    result = run(Server(current.base_url, "octo_live_wrong"))
    assert result.exit_code == 1
    assert "401" in result.output


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "asks"), [(b"n\n", False), (b"y\n", True)])
def test_a_terminal_is_asked_for_consent(answer: bytes, asks: bool, current: Sandbox) -> None:
    begun = len(current.requests)
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "OCTOGEN_PLATFORM_API_KEY": current.api_key,
        "OCTOGEN_BASE_URL": current.base_url,
    }
    program = "from octogen_dagster.cli.main import main; main()"
    command = [sys.executable, "-c", program, "verify"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        output, _ = process.communicate(timeout=60)
    os.close(ours)
    assert b"Ask?" in output
    assert (len(current.requests) > begun) is asks
    assert process.returncode == 0
