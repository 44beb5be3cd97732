"""`verify` asks the service whether what the package believes of it is true, for a known price."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import takewhile
from typing import Any, NamedTuple

import httpx
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, Received, hanging, http

HOST = "kumo.example"
QUESTIONS = [
    "generation",
    "account",
    "rate limit",
    "time of indexing",
    "counts by category",
    "fields of a page",
    "unit of the count",
    "next page",
    "size of a page",
    "catalog of products",
    "brands and prices",
    "repeated first page",
    "unknown catalog",
    "known product",
    "unknown product",
    "keywords as written",
    "facet and its exclusion",
    "without a key",
    "URL lists",
]
Answers = dict[str, dict[str, str]]
PROGRAM = "from octogen_dagster.cli.main import main; main()"


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


def environment_of(server: Any) -> dict[str, str]:
    """The environment of a process that asks a server."""
    return {
        **os.environ,
        "OCTOGEN_PLATFORM_API_KEY": server.api_key,
        "OCTOGEN_BASE_URL": server.base_url,
    }


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
        self._client = httpx.Client(verify=False)

    def respond(self, request: Received) -> list[bytes]:
        number = self._seen[request.target]
        self._seen[request.target] += 1
        url = self._sandbox.base_url.removesuffix("/v1") + request.target
        kept = ("authorization", "content-type")
        answer = self._client.request(
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


def most_items(**fields: Any) -> Deviation:
    """All products but one of ten get these fields."""

    def change(page: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
        items = [
            each if number % 10 == 0 else {**each, **fields}
            for number, each in enumerate(page["items"])
        ]
        return {**page, "items": items}

    return body(change)


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


def last_cursor_again(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """The last page has the cursor that led to it."""
    if not is_whole(sent) or page.get("nextCursor") or "cursor" not in sent:
        return page
    return {**page, "nextCursor": sent["cursor"]}


def one_less(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    is_full = is_whole(sent) and page.get("nextCursor")
    return {**page, "items": page["items"][:99]} if is_full else page


def one_of_elsewhere(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    if not is_first(sent):
        return page
    first, *items = page["items"]
    return {**page, "items": [{**first, "catalogKey": "elsewhere"}, *items]}


def excludes_all(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    return {**page, "items": [], "nextCursor": None} if "exclude_facets" in sent else page


def excludes_the_unknown(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """Products without a brand are excluded too, as by a database that compares nulls."""
    if "exclude_facets" not in sent:
        return page
    return {**page, "items": [each for each in page["items"] if each.get("brand")]}


def no_brand_found(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    return {**page, "items": [], "nextCursor": None} if "facets" in sent else page


def another_text(page: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    if "q" not in sent:
        return page
    return {**page, "effectiveQuery": {**page["effectiveQuery"], "text": "gown"}}


def one_more_counted(counts: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
    (facet,) = counts["facets"]
    return {
        **counts,
        "facets": [{**facet, "values": [*facet["values"], {"value": "x", "count": 1}]}],
    }


def another_product(found: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
    return {**found, "product": {**found["product"], "uuid": "another"}}


def computed_now(seen: Exchange) -> Exchange:
    minute = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    catalogs = [{**each, "computedAt": minute.isoformat()} for each in seen.body["catalogs"]]
    return seen._replace(body={**seen.body, "catalogs": catalogs})


def without_key(change: Callable[[Exchange], Exchange]) -> Deviation:
    return on("/products/search", lambda seen: change(seen) if seen.status == 401 else seen)


def html(seen: Exchange) -> Exchange:
    return seen._replace(status=200, body="<html>Welcome</html>")


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
    ("facet and its exclusion", "are in both parts", searches(not_left_out)),
    ("keywords as written", "gender", searches(body(understood))),
    ("unknown product", "on_demand", on("/products/lookup", on_demand)),
    ("without a key", "a 500", without_key(status(500))),
    ("without a key", "no page of a search", without_key(html)),
    (
        "URL lists",
        "models refuse",
        on("/coverage", lambda seen: seen._replace(status=200, body={"lists": []})),
    ),
    (
        "URL lists",
        "models refuse",
        on("/coverage", lambda seen: seen._replace(status=200, body={"items": [1, 2]})),
    ),
    ("unit of the count", "fewer than are counted", searches(body(only_a_few))),
    ("time of indexing", "1 of 1 times moved", on("/domains", moving)),
    ("time of indexing", "of this minute", on("/domains", computed_now)),
    (
        "time of indexing",
        "no list of catalogs",
        on("/domains", body(lambda shop, _: {"host": HOST})),
    ),
    ("counts by category", "231", on("/products/facet-counts", body(one_more_counted))),
    ("next page", "page 3 is that of an earlier one", searches(body(last_cursor_again))),
    ("size of a page", "99 came", searches(body(one_less))),
    ("catalog of products", "1 of 230", searches(body(one_of_elsewhere))),
    ("catalog of products", "no product names", searches(each_item(catalogKey=None))),
    ("brands and prices", "have no brand", searches(most_items(brand=None))),
    ("brands and prices", "no price", searches(most_items(currentPrice=0))),
    ("brands and prices", "no currency", searches(most_items(currency=None))),
    ("facet and its exclusion", "listed are in neither", searches(body(excludes_all))),
    (
        "facet and its exclusion",
        "6 that are listed are in neither",
        searches(body(excludes_the_unknown)),
    ),
    ("facet and its exclusion", "find nothing as a facet", searches(body(no_brand_found))),
    ("keywords as written", "'gown' was matched", searches(body(another_text))),
    ("known product", "404", on("/products/lookup", status(404, "product_not_found"))),
    (
        "known product",
        "another product",
        on(
            "/products/lookup",
            lambda seen: seen if seen.status == 404 else body(another_product)(seen),
        ),
    ),
    ("known product", "not the index", on("/products/lookup", on_demand)),
]


def test_everything_that_is_asked_of_the_sandbox_holds(
    sandbox: Sandbox, run: Callable[..., Result]
) -> None:
    arguments = ["--host", HOST, "--max-usd", "1", "--json"]
    result = run(sandbox, *arguments)
    answers = answers_of(result)
    assert result.exit_code == 0, result.output
    not_asked = {name for name, each in answers.items() if each["verdict"] == "not asked"}
    of_the_current = {
        "account",
        "counts by category",
        "catalog of products",
        "facet and its exclusion",
        "keywords as written",
        "URL lists",
    }
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


@pytest.mark.parametrize(
    ("question", "verdict", "seen", "deviate"),
    [
        ("URL lists", "not asked", "not open", on("/coverage", status(404, "Not Found"))),
        ("unknown product", "holds", "a 404", on("/products/lookup", status(404, "no such thing"))),
        (
            "without a key",
            "holds",
            "the trial answers",
            without_key(lambda seen: seen._replace(status=200, body={"items": []})),
        ),
    ],
)
def test_what_is_no_difference(
    question: str,
    verdict: str,
    seen: str,
    deviate: Deviation,
    current: Sandbox,
    run: Callable[..., Result],
) -> None:
    with RawServer(Deviating(current, deviate).respond) as server:
        result = run(Server(server.base_url, current.api_key), "--host", HOST, "--json")
    answer = answers_of(result)[question]
    assert (answer["verdict"], seen in answer["seen"]) == (verdict, True), answer


def differing(catalogs: list[str], seed: int, run: Callable[..., Result]) -> list[Any]:
    """What differs for the shops of a sandbox."""
    found = []
    with Sandbox(catalogs=catalogs, products=230, seed=seed) as honest:
        for host in honest.hosts:
            answers = answers_of(run(honest, "--host", host, "--max-usd", "1", "--json"))
            found += [(host, each) for each in answers.values() if each["verdict"] != "holds"]
    return found


def test_a_brand_that_the_shop_spells_otherwise_is_no_difference(
    run: Callable[..., Result],
) -> None:
    assert differing(["shop12", "northpeak", "northpeak.outlet"], 1, run) == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_differs_for_thirty_shops(seed: int, run: Callable[..., Result]) -> None:
    assert differing([f"shop{number}" for number in range(30)], seed, run) == []


@contextmanager
def broken(
    sandbox: Sandbox, target: str, parts: Callable[[Callable[[], RawServer]], Iterable[bytes]]
) -> Iterator[Server]:
    """The sandbox, but for one operation, which is answered with these parts."""
    others = Deviating(sandbox, lambda seen: seen)

    def respond(request: Received) -> Iterable[bytes]:
        if request.target.startswith(f"/v1{target}"):
            return parts(lambda: server)
        return others.respond(request)

    with RawServer(respond) as server:
        yield Server(server.base_url, sandbox.api_key)


TOLD_BY = {
    "/me": {"generation"},
    "/domains": {"time of indexing"},
    "/products/facet-counts": {"counts by category"},
    "/products/search": {
        "fields of a page",
        "unknown catalog",
        "keywords as written",
        "without a key",
    },
    "/products/lookup": {"known product", "unknown product"},
    "/coverage": {"URL lists"},
}
"""Each operation, and the questions that tell that it is broken. Others are not asked for it."""
UNREADABLE: dict[str, Any] = {
    "html": "<html>Welcome</html>",
    "no field": {"fields": None},
    "nested": b'{"items":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("target", TOLD_BY)
def test_an_answer_that_is_none_differs_and_leaves_the_other_questions(
    target: str, kind: str, current: Sandbox, run: Callable[..., Result]
) -> None:
    with broken(current, target, lambda _: http(body=UNREADABLE[kind])) as server:
        result = run(server, "--host", HOST, "--max-usd", "1", "--json")
    answers = answers_of(result)
    differing = {name for name, each in answers.items() if each["verdict"] == "differs"}
    # An account without fields is one of the current contract.
    told_by = {"account"} if (target, kind) == ("/me", "no field") else TOLD_BY[target]
    assert (differing, result.exit_code) == (told_by, 1)


REFUSED = {
    "revoked": http(401, {"detail": "API key revoked"}),
    "closed": [b""],
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("target", TOLD_BY)
def test_an_operation_without_an_answer_is_not_asked_about(
    target: str,
    kind: str,
    current: Sandbox,
    run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    with broken(current, target, lambda _: REFUSED[kind]) as server:
        result = run(server, "--host", HOST, "--max-usd", "1", "--json")
    answers = answers_of(result)
    assert not [each for each in answers.values() if each["verdict"] == "differs"]
    first = next(name for name in QUESTIONS if name in TOLD_BY[target])
    reason = "the key is refused (401)" if kind == "revoked" else "no answer"
    assert answers[first]["seen"].startswith(reason)
    assert result.exit_code == int(target == "/me"), result.output


def test_a_key_of_another_kind_of_organisation_fails(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    refused = http(403, {"detail": "api_key_org_type_forbidden"})
    with broken(current, "", lambda _: refused) as server:
        result = run(server, "--json")
    asked = {name for name, each in answers_of(result).items() if each["verdict"] != "not asked"}
    assert (asked, result.exit_code) == ({"without a key"}, 1)


@pytest.mark.parametrize("target", ["/me", "/products/lookup"])
def test_an_operation_that_hangs_is_left(
    target: str, current: Sandbox, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octogen_dagster.doctor.verify.answers.QUESTION_TIMEOUT", 2.0)
    with broken(current, target, hanging) as server:
        result = run(server, "--host", HOST, "--max-usd", "1", "--json")
    answers = answers_of(result)
    first = next(name for name in QUESTIONS if name in TOLD_BY[target])
    assert answers[first]["seen"].startswith("no answer")
    asked = {name for name, each in answers.items() if each["verdict"] != "not asked"}
    assert result.exit_code == int(target == "/me"), result.output
    if target == "/me":
        assert asked <= {"without a key", "unknown product"}
    else:
        assert {"URL lists", "unit of the count"} <= asked


@pytest.mark.slow
def test_each_answer_is_shown_as_it_comes_and_stays_after_an_interrupt(current: Sandbox) -> None:
    with broken(current, "/coverage", hanging) as server:
        command = [sys.executable, "-c", PROGRAM, "verify", "--host", HOST, "--max-usd", "1"]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment_of(server),
            text=True,
        ) as process:
            assert process.stdout
            lines = iter(process.stdout.readline, "")
            shown = list(
                takewhile(lambda line: not line.startswith("holds      without a key"), lines)
            )
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
    assert f"holds      {'unit of the count':<23}  230 rows" in "".join(shown)
    assert "18 hold, 0 differ, 0 were not asked. $0.128 of $1.00 were spent." in rest
    assert ("Traceback" in errors, process.returncode) == (False, 1)


def test_it_says_first_what_is_asked_and_what_it_may_cost(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    result = run(current, "--host", HOST)
    plan, _, report = result.output.partition("All of them cost at most $0.144")
    assert all(f"  {question}  " in plan for question in QUESTIONS)
    assert f"  {'unit of the count':<23}  up to $0.028" in plan
    assert "holds" not in plan
    assert "no more than $0.10 is spent" in report
    assert "pasted into an issue" in report


def charged(requests: Iterable[Any]) -> list[Any]:
    return [
        each
        for each in requests
        if each.status == 200 and each.path.endswith(("/search", "/lookup"))
    ]


def test_no_more_is_spent_than_allowed(current: Sandbox, run: Callable[..., Result]) -> None:
    begun = len(current.requests)
    result = run(current, "--host", HOST, "--max-usd", "0.03", "--json")
    assert len(charged(current.requests[begun:])) == 3  # two pages at $0.014, a lookup at $0.002
    answers = answers_of(result)
    for question in ("unit of the count", "repeated first page", "facet and its exclusion"):
        assert answers[question]["verdict"] == "not asked"
        assert "raise it" in answers[question]["seen"]
    assert result.exit_code == 0


def test_the_count_is_asked_before_what_else_is_charged(run: Callable[..., Result]) -> None:
    with Sandbox(catalogs={"kumo": 430}) as larger:
        result = run(larger, "--host", HOST, "--max-usd", "0.07", "--json")
    answers = answers_of(result)
    assert answers["unit of the count"]["seen"].startswith("430 rows where 430 are counted")
    assert answers["unknown catalog"]["verdict"] == "not asked"


@pytest.mark.parametrize(
    ("products", "max_usd", "reason"),
    [
        (501, "1", "has 501 products, and at most 500 are counted: name a smaller shop"),
        (430, "0.06", "it may cost $0.07, and $0.06 of --max-usd are left: raise it"),
    ],
)
def test_the_plan_says_that_the_count_is_left_out(
    products: int, max_usd: str, reason: str, run: Callable[..., Result]
) -> None:
    with Sandbox(catalogs={"kumo": products}) as larger:
        result = run(larger, "--host", HOST, "--max-usd", max_usd)
    plan, _, report = result.output.partition("All of them cost at most")
    (line,) = [each for each in plan.splitlines() if "  unit of the count  " in each]
    assert "left out" in line
    assert reason in line
    assert "not asked  unit of the count" in report


def test_an_exclusion_that_finds_nothing_differs_in_a_large_shop_too(
    run: Callable[..., Result],
) -> None:
    with Sandbox(catalogs={"kumo": 700}) as large:
        honest = answers_of(run(large, "--host", HOST, "--max-usd", "1", "--json"))
        with RawServer(Deviating(large, searches(body(excludes_all))).respond) as server:
            deviating = Server(server.base_url, large.api_key)
            answers = answers_of(run(deviating, "--host", HOST, "--max-usd", "1", "--json"))
    question = "facet and its exclusion"
    assert (honest[question]["verdict"], answers[question]["verdict"]) == ("holds", "differs")


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
    environment = environment_of(current)
    command = [sys.executable, "-c", PROGRAM, "verify"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        output, _ = process.communicate(timeout=60)
    os.close(ours)
    assert b"Ask?" in output
    assert bool(charged(current.requests[begun:])) is asks
    assert process.returncode == 0
