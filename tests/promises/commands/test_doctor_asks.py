"""`doctor --ask` asks the service whether what is believed of it is true, for a known price."""

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
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY, RawServer, Received, hanging, http

HOST = "kumo.example"
QUESTIONS = [
    "rate limit",
    "time of indexing",
    "counts by category",
    "fields of a page",
    "unit of the count",
    "next page",
    "size of a page",
    "catalog of products",
    "brands and prices",
    "made-up cursor",
    "repeated first page",
    "unknown catalog",
    "known product",
    "unknown product",
    "keywords as written",
    "facet and its exclusion",
    "without a key",
    "URL lists",
    "time of indexing, later",
    "first page, later",
]
LATER = set(QUESTIONS[-2:])
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


@pytest.fixture(scope="module")
def current() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"kumo": 230}) as running:
        yield running


@pytest.fixture(autouse=True)
def _outside_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs the command against a server."""

    def doctor(server: Any, *arguments: str, consent: bool = True) -> Result:
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", server.api_key)
        monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
        yes = ["--yes"] if consent else []
        result = CliRunner().invoke(main, ["doctor", "--ask", *yes, *arguments])
        assert server.api_key not in result.output
        return result

    return doctor


def environment_of(server: Any) -> dict[str, str]:
    """The environment of a process that asks a server."""
    return {
        **os.environ,
        "OCTOGEN_PLATFORM_API_KEY": server.api_key,
        "OCTOGEN_BASE_URL": server.base_url,
    }


def findings_of(result: Result) -> Answers:
    return {each["subject"]: each for each in json.loads(result.stdout)["findings"]}


def answers_of(result: Result) -> Answers:
    answers = {name: each for name, each in findings_of(result).items() if name in QUESTIONS}
    assert list(answers) == QUESTIONS
    return answers


def failed(findings: Answers, status: str = "failed") -> set[str]:
    return {name for name, each in findings.items() if each["status"] == status}


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
        if is_page and is_first(seen):
            self._first = self._first or seen.body
        exchange = self._deviate(seen)
        return http(exchange.status, exchange.body, length=None, **exchange.headers)


def on(target: str, change: Deviation) -> Deviation:
    """A deviation of the answers to one operation."""
    return lambda seen: change(seen) if seen.request.target.startswith(f"/v1{target}") else seen


def body(change: Callable[[Any], Any]) -> Deviation:
    """A deviation of the body of an answer."""
    return lambda seen: seen._replace(body=change(seen.body))


def answer(status: int, body: Any) -> Deviation:
    return lambda seen: seen._replace(status=status, body=body)


def page(when: Callable[[Exchange], object] = bool, **fields: Any) -> Deviation:
    """A deviation of pages that were answered with a key: fields, or what makes them of a page."""

    def change(seen: Exchange) -> Exchange:
        if seen.status != 200 or not when(seen):
            return seen
        new = {name: make(seen) if callable(make) else make for name, make in fields.items()}
        return seen._replace(body={**seen.body, **new})

    return on("/products/search", change)


def each_item(every: int = 1, **fields: Any) -> Deviation:
    """All products get these fields, but for the first of so many."""
    return page(
        items=lambda seen: [
            {**each, **fields} if every == 1 or number % every else each
            for number, each in enumerate(seen.body["items"])
        ]
    )


def query(**fields: Any) -> Deviation:
    """A deviation of what is searched with keywords."""
    return page(has("q"), effectiveQuery=lambda seen: {**seen.body["effectiveQuery"], **fields})


def computed(at: Callable[[Exchange], object]) -> Deviation:
    """A deviation of the time of catalogs."""
    return on(
        "/domains",
        lambda seen: body(
            lambda shop: {
                **shop,
                "catalogs": [{**each, "computedAt": at(seen)} for each in shop["catalogs"]],
            }
        )(seen),
    )


def this_minute(_: Exchange) -> str:
    return datetime.now(UTC).replace(second=0, microsecond=0).isoformat()


def has(field: str) -> Callable[[Exchange], bool]:
    return lambda seen: field in seen.sent


def is_whole(seen: Exchange) -> bool:
    return not seen.sent.keys() & {"q", "facets", "exclude_facets"} and seen.sent["limit"] == 100


def is_full(seen: Exchange) -> bool:
    return is_whole(seen) and bool(seen.body.get("nextCursor"))


def is_first(seen: Exchange) -> bool:
    return is_whole(seen) and not has("cursor")(seen)


def is_last(seen: Exchange) -> bool:
    return is_whole(seen) and not seen.body.get("nextCursor") and has("cursor")(seen)


def is_made_up(seen: Exchange) -> bool:
    return str(seen.sent.get("cursor")).startswith("octogen-doctor")


def refused_cursor(seen: Exchange) -> Exchange:
    return answer(400, {"detail": "invalid_cursor"})(seen) if is_made_up(seen) else seen


def without_key(change: Deviation) -> Deviation:
    return on("/products/search", lambda seen: change(seen) if seen.status == 401 else seen)


def backwards(seen: Exchange) -> list[Any]:
    return list(reversed(seen.body["items"]))


def refused_cursor_and_another_order(seen: Exchange) -> Exchange:
    is_again = page(lambda seen: seen.first and is_first(seen), items=backwards)
    return is_again(on("/products/search", refused_cursor)(seen))


def renamed(seen: Exchange) -> list[Any]:
    return [
        {"pictures" if name == "images" else name: value for name, value in each.items()}
        for each in seen.body["items"]
    ]


def first_items(seen: Exchange) -> Any:
    return seen.first and seen.first["items"]


def one_of_elsewhere(seen: Exchange) -> list[Any]:
    first, *items = seen.body["items"]
    return [{**first, "catalogKey": "elsewhere"}, *items]


def one_more_counted(counts: dict[str, Any]) -> dict[str, Any]:
    (facet,) = counts["facets"]
    values = [*facet["values"], {"value": "x", "count": 1}]
    return {**counts, "facets": [{**facet, "values": values}]}


def another_product(seen: Exchange) -> Exchange:
    if seen.status == 404:
        return seen
    return body(lambda found: {**found, "product": {**found["product"], "uuid": "another"}})(seen)


KEY_OF_MERCHANT = on("/me", body(lambda me: {**me, "organization": {"type": "merchant"}}))
TIME = "2026-11-29T10:00"
NO_ITEMS: dict[str, Any] = {"items": [], "nextCursor": None}
DERIVED = [{"name": "gender", "values": ["female"], "source": "generated"}]
ELSEWHERE = [{"uuid": "1", "productUrl": "https://elsewhere.example/1"}]
ON_DEMAND = answer(
    200,
    {
        "product": {"productUrl": "https://kumo.example/x", "title": "From its page"},
        "source": "on_demand",
    },
)
SPLIT = "facet and its exclusion"
DEVIATIONS: list[tuple[str, str, Deviation]] = [
    ("Octogen", "404", on("/me", answer(404, {"detail": "odd"}))),
    ("rate limit", "x-ratelimit-limit", lambda seen: seen._replace(headers={})),
    ("time of indexing", "1 of 1 index times", computed(lambda seen: f"{TIME}:{seen.number:02}Z")),
    ("time of indexing", "less than a minute", computed(this_minute)),
    ("time of indexing", "lists no catalogs", on("/domains", body(lambda _: {"host": HOST}))),
    ("counts by category", "231", on("/products/facet-counts", body(one_more_counted))),
    ("Octogen", "must contain a principal", on("/me", body(lambda _: {}))),
    ("rate limit", "principal is a number", on("/me", body(lambda me: {**me, "principal": 7}))),
    ("time of indexing", "catalogs.computedAt is a number", computed(lambda _: 7)),
    ("fields of a page", "does not match the documented models", each_item(currentPrice="cheap")),
    *(
        ("fields of a page", f"items.{name} is a number", each_item(**{name: 7}))
        for name in ("uuid", "title", "gender", "catalogKey", "updatedAt")
    ),
    ("fields of a page", "items.brand.url is a number", each_item(brand={"name": "A", "url": 7})),
    ("unit of the count", "230", page(is_whole, items=lambda seen: seen.body["items"][:40])),
    ("next page", "100 of them", page(has("cursor"), items=first_items)),
    ("next page", "loop", page(nextCursor="again")),
    ("next page", "page 3", page(is_last, nextCursor=lambda seen: seen.sent["cursor"])),
    (
        "size of a page",
        "has 99 products",
        page(is_full, items=lambda seen: seen.body["items"][:99]),
    ),
    ("catalog of products", "1 of 230", page(is_first, items=one_of_elsewhere)),
    (
        "repeated first page",
        "of 100 products",
        page(is_made_up, items=backwards),
    ),
    ("repeated first page", "of 100 products", refused_cursor_and_another_order),
    ("made-up cursor", "400", on("/products/search", refused_cursor)),
    ("made-up cursor", "0 of 0 products", page(is_made_up, **NO_ITEMS)),
    (
        "unknown catalog",
        "1 products",
        page(lambda seen: "octogen-doctor" in str(seen.sent.get("catalogs")), items=ELSEWHERE),
    ),
    ("known product", "404", on("/products/lookup", answer(404, {"detail": "product_not_found"}))),
    ("known product", "another product", on("/products/lookup", another_product)),
    ("known product", "'on_demand'", on("/products/lookup", ON_DEMAND)),
    ("unknown product", "on_demand", on("/products/lookup", ON_DEMAND)),
    ("keywords as written", "gender", query(understood=True, facets=DERIVED)),
    ("keywords as written", "'gown' was matched", query(text="gown")),
    (SPLIT, "are in both parts", page(has("exclude_facets"), items=first_items)),
    (SPLIT, "listed products are in neither", page(has("exclude_facets"), **NO_ITEMS)),
    (
        SPLIT,  # a database that compares nulls leaves out products without a brand too
        "6 listed products are in neither",
        page(
            has("exclude_facets"),
            items=lambda seen: [each for each in seen.body["items"] if each.get("brand")],
        ),
    ),
    (SPLIT, "returns no products", page(has("facets"), **NO_ITEMS)),
    ("without a key", "status 500", without_key(answer(500, {"detail": "odd"}))),
    ("without a key", "without a search page", without_key(answer(200, "<html>Welcome</html>"))),
    (
        "URL lists",
        "does not match the documented models",
        on("/coverage", answer(200, {"lists": []})),
    ),
    (
        "URL lists",
        "does not match the documented models",
        on("/coverage", answer(200, {"items": [1, 2]})),
    ),
]


@pytest.mark.parametrize("generation", ["current", "seed"])
def test_everything_that_is_asked_of_the_sandbox_holds(
    generation: Any, run: Callable[..., Result]
) -> None:
    arguments = ["--host", HOST] if generation == "current" else []
    with Sandbox(catalogs={"kumo": 230}, generation=generation) as sandbox:
        result = run(sandbox, *arguments, "--max-usd", "1", "--json")
    answers = answers_of(result)
    assert result.exit_code == 0, result.output
    not_asked = {name for name, each in answers.items() if each["status"] == "skipped"} - LATER
    of_the_current = {
        "counts by category",
        "catalog of products",
        "facet and its exclusion",
        "keywords as written",
        "URL lists",
    }
    assert not_asked == (of_the_current if generation == "seed" else set())


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
    answer = findings_of(result)[question]
    assert (answer["status"], result.exit_code) == ("failed", 1), answer
    assert seen in answer["message"]
    assert question not in QUESTIONS or "Affects:" in answer["advice"]


@pytest.mark.parametrize(
    ("question", "verdict", "seen", "deviate"),
    [
        ("URL lists", "skipped", "404", on("/coverage", answer(404, {"detail": "Not Found"}))),
        (
            "unknown product",
            "ok",
            "404",
            on("/products/lookup", answer(404, {"detail": "no such"})),
        ),
        (
            "without a key",
            "ok",
            "trial search without a key (200)",
            without_key(answer(200, {"items": []})),
        ),
        ("Octogen key", "warning", "'merchant'", KEY_OF_MERCHANT),
        # What is documented as nullable may be null of all products.
        ("fields of a page", "warning", "has currentPrice", each_item(currentPrice=None)),
        (
            "fields of a page",
            "warning",
            "images; new fields: pictures",
            page(items=renamed),
        ),
        ("catalog of products", "warning", "no product has", each_item(catalogKey=None)),
        ("brands and prices", "warning", "without brand", each_item(10, brand=None)),
        ("brands and prices", "warning", "without price", each_item(10, currentPrice=None)),
        ("brands and prices", "warning", "without currency", each_item(10, currency=None)),
    ],
)
def test_what_is_documented_or_may_pass_is_no_failure(
    question: str,
    verdict: str,
    seen: str,
    deviate: Deviation,
    current: Sandbox,
    run: Callable[..., Result],
) -> None:
    with RawServer(Deviating(current, deviate).respond) as server:
        result = run(Server(server.base_url, current.api_key), "--host", HOST, "--json")
    answer = findings_of(result)[question]
    assert (answer["status"], seen in answer["message"]) == (verdict, True), answer


def differing(catalogs: list[str], seed: int, run: Callable[..., Result]) -> list[Any]:
    """What differs for the shops of a sandbox."""
    found = []
    with Sandbox(catalogs=catalogs, products=230, seed=seed) as honest:
        for host in honest.hosts:
            answers = answers_of(run(honest, "--host", host, "--max-usd", "1", "--json"))
            found += [(host, name) for name in failed(answers)]
    return found


def test_a_brand_that_the_shop_spells_otherwise_is_no_difference(
    run: Callable[..., Result],
) -> None:
    assert differing(["shop12", "northpeak", "northpeak.outlet"], 1, run) == []


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
    "/me": {"rate limit"},
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
    assert (failed(answers), result.exit_code) == (TOLD_BY[target], 1)


BLOCKED: dict[str, tuple[Any, str]] = {
    "revoked": (http(401, {"detail": "API key revoked"}), "contains a valid key"),
    "no credit": (http(402, {"detail": {"code": "insufficient_credit"}}), "Top it up"),
    "forbidden": (http(403, {"detail": "api_key_forbidden"}), "Ask Octogen for access"),
    "closed": ([b""], "Check the host"),
}
"""Answers that say nothing about the service, and what the user is told to do."""


@pytest.mark.parametrize("kind", BLOCKED)
@pytest.mark.parametrize("target", TOLD_BY)
def test_doctor_ask_says_what_blocks_a_question_and_asks_the_others(
    target: str,
    kind: str,
    current: Sandbox,
    run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    sent, advice = BLOCKED[kind]
    with broken(current, target, lambda _: sent) as server:
        result = run(server, "--host", HOST, "--max-usd", "1", "--json")
    answers = answers_of(result)
    told_by = TOLD_BY[target] - ({"without a key"} if kind != "closed" else set())
    assert failed(answers, "blocked") == told_by
    assert failed(answers) <= {"without a key"}  # without a key there is no credit to spend
    assert result.exit_code == 1
    assert all(advice in answers[name]["advice"] for name in told_by)
    assert "report it" not in str([answers[name] for name in told_by])


def test_a_key_of_another_kind_of_organization_fails(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    refused = http(403, {"detail": "api_key_org_type_forbidden"})
    with broken(current, "", lambda _: refused) as server:
        result = run(server, "--json")
    answers = answers_of(result)
    holding = {name for name, each in answers.items() if each["status"] == "ok"}
    blocked = failed(answers, "blocked")
    assert (blocked, failed(answers), holding) == ({"rate limit"}, set(), {"without a key"})
    assert result.exit_code == 1


@pytest.mark.parametrize("target", ["/me", "/products/lookup"])
def test_an_operation_that_hangs_is_left(
    target: str, current: Sandbox, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octogen_dagster.doctor.service.QUESTION_TIMEOUT", 2.0)
    with broken(current, target, hanging) as server:
        result = run(server, "--host", HOST, "--max-usd", "1", "--timeout", "3", "--json")
    answers = answers_of(result)
    first = next(name for name in QUESTIONS if name in TOLD_BY[target])
    assert answers[first]["message"].startswith("no response from http://")
    holding = {name for name, each in answers.items() if each["status"] == "ok"}
    assert result.exit_code == 1
    if target == "/me":
        assert holding == {"without a key"}
    else:
        assert {"URL lists", "unit of the count"} <= holding


@pytest.mark.slow
def test_each_answer_is_shown_as_it_comes_and_stays_after_an_interrupt(current: Sandbox) -> None:
    with broken(current, "/coverage", hanging) as server:
        arguments = ["doctor", "--ask", "--yes", "--host", HOST, "--max-usd", "1"]
        command = [sys.executable, "-c", PROGRAM, *arguments]
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
                takewhile(lambda line: not line.startswith("ok       without a key"), lines)
            )
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
    assert "ok       unit of the count: 230 rows" in "".join(shown)
    assert "Spent $0.128 of $1.00." in rest
    assert ("Traceback" in errors, process.returncode) == (False, 1)


def test_it_says_first_what_is_asked_and_what_it_may_cost(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    result = run(current, "--host", HOST)
    plan, _, report = result.output.partition("\nMaximum cost: $0.144")
    assert all(f"  {question}  " in plan for question in QUESTIONS)
    assert f"  {'unit of the count':<23}  up to $0.028" in plan
    assert "ok       unit" not in plan
    assert "$0.15" in report.splitlines()[0]
    assert "ok       facet and its exclusion" in report
    assert "Spent $" in report


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
        assert answers[question]["status"] == "skipped"
        assert "--max-usd" in answers[question]["message"]
    assert result.exit_code == 0


def test_the_count_is_asked_before_what_else_is_charged(run: Callable[..., Result]) -> None:
    with Sandbox(catalogs={"kumo": 430}) as larger:
        result = run(larger, "--host", HOST, "--max-usd", "0.07", "--json")
    answers = answers_of(result)
    assert answers["unit of the count"]["message"].startswith("430 rows for a count of 430, ")
    assert answers["unknown catalog"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("products", "max_usd", "reason"),
    [
        (501, "1", "501 products, which exceeds the limit of 500"),
        (430, "0.06", "can cost $0.07, but only $0.06"),
    ],
)
def test_the_plan_says_that_the_count_is_left_out(
    products: int, max_usd: str, reason: str, run: Callable[..., Result]
) -> None:
    with Sandbox(catalogs={"kumo": products}) as larger:
        result = run(larger, "--host", HOST, "--max-usd", max_usd)
    plan, _, report = result.output.partition("\nMaximum cost: ")
    (line,) = [each for each in plan.splitlines() if "  unit of the count  " in each]
    assert "skipped" in line
    assert reason in line
    assert "skipped  unit of the count" in report


def test_an_exclusion_that_finds_nothing_differs_in_a_large_shop_too(
    run: Callable[..., Result],
) -> None:
    with Sandbox(catalogs={"kumo": 700}) as large:
        honest = answers_of(run(large, "--host", HOST, "--max-usd", "1", "--json"))
        with RawServer(Deviating(large, page(has("exclude_facets"), **NO_ITEMS)).respond) as server:
            deviating = Server(server.base_url, large.api_key)
            answers = answers_of(run(deviating, "--host", HOST, "--max-usd", "1", "--json"))
    question = "facet and its exclusion"
    assert (honest[question]["status"], answers[question]["status"]) == ("ok", "failed")


@pytest.mark.parametrize("as_json", [False, True])
def test_doctor_ask_names_nothing_of_its_user_without_details(
    *,
    as_json: bool,
    current: Sandbox,
    run: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setenv("OCTOGEN_MCP_URL", "http://127.0.0.1:1/mcp/")
    arguments = ["--host", HOST, "--max-usd", "1", "--base-dir", str(tmp_path / "of-acme")]
    arguments += ["--project", "acme-project", "--principal", "user:jo@acme.com", "--timeout", "5"]
    arguments += ["--json"] if as_json else []
    shown = run(current, *arguments)
    for name in ("kumo", "acme", "'sandbox'", str(tmp_path)):
        assert name not in shown.output.lower()
    assert findings_of(shown)["Snapshots"]["status"] == "ok" if as_json else "ok" in shown.stdout
    detailed = run(current, *arguments, "--details").stdout
    for name in ("kumo", "of-acme", "acme-project", "'Sandbox'"):
        assert name in detailed


def test_doctor_ask_sends_no_search_in_the_older_form(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    begun = len(current.requests)
    run(current, "--host", HOST, "--max-usd", "1")
    assert [each.path for each in current.requests[begun:] if each.status == 422] == []


@pytest.mark.parametrize("route", ["domains", "stores"])
def test_doctor_ask_says_which_operation_describes_shops(
    route: str, run: Callable[..., Result]
) -> None:
    with Sandbox(catalogs={"kumo": 230}, shop_routes=[route]) as sandbox:
        answers = answers_of(run(sandbox, "--host", HOST, "--json"))
    assert answers["time of indexing"]["message"].endswith(f" /{route}.")


def test_doctor_ask_is_blocked_by_a_host_that_does_not_exist(run: Callable[..., Result]) -> None:
    result = run(Server("http://127.0.0.1:1/v1", KEY), "--json")
    answers = answers_of(result)
    assert (failed(answers, "blocked"), failed(answers)) == ({"rate limit", "without a key"}, set())
    assert "http://127.0.0.1:1/v1" in answers["rate limit"]["message"]


EVIDENCE = {"at": "2026", "catalog": "1", "indexed_at": "", "products": ["1"], "content": "1"}
DAMAGED = {
    "cut": json.dumps({"evidence": EVIDENCE})[:-3],
    "empty": json.dumps({"evidence": None}),
    "text": json.dumps({"evidence": {**EVIDENCE, "products": "1"}}),
    **{
        f"no {name}": json.dumps(
            {"evidence": {key: EVIDENCE[key] for key in EVIDENCE if key != name}}
        )
        for name in EVIDENCE
    },
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-usd", "0"], "--max-usd must be greater than 0; got 0.0"),
        (["--max-usd", "inf"], "--max-usd must be greater than 0; got inf"),
        (["--max-usd", "nan"], "--max-usd must be greater than 0; got nan"),
        (["--host", " / "], "`hosts` contains '/', which is not a host"),
        (
            ["--compare", "nowhere.json"],
            "nowhere.json is not a readable report (File",
        ),
        *(
            (["--compare", f"{name}.json"], f"{name}.json is not a readable report")
            for name in DAMAGED
        ),
    ],
)
def test_bad_input_is_asked_nothing(
    arguments: list[str], message: str, current: Sandbox, run: Callable[..., Result]
) -> None:
    for name, text in DAMAGED.items():
        Path(f"{name}.json").write_text(text)
    begun = len(current.requests)
    result = run(current, *arguments)
    assert (result.exit_code, message in result.output) == (2, True)
    assert not current.requests[begun:]


def test_a_shop_that_is_not_covered_is_told_and_nothing_is_charged(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    begun = len(current.requests)
    result = run(current, "--host", "elsewhere.example", "--json")
    assert result.exit_code == 1
    found = findings_of(result)["Octogen catalogs"]
    assert "Shop '…' is not covered by Octogen" in found["message"]
    assert not charged(current.requests[begun:])


def test_without_a_shop_what_needs_one_is_not_asked(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    answers = answers_of(run(current, "--max-usd", "1", "--json"))
    for question in ("unit of the count", "time of indexing"):
        assert answers[question]["status"] == "skipped"
        assert "--host" in answers[question]["message"]


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
    command = [sys.executable, "-c", PROGRAM, "doctor", "--ask"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        output, _ = process.communicate(timeout=60)
    os.close(ours)
    assert b"Continue?" in output
    assert bool(charged(current.requests[begun:])) is asks
    assert process.returncode == int(not asks)


def test_without_a_terminal_nothing_is_spent_unless_it_is_allowed(
    current: Sandbox, run: Callable[..., Result]
) -> None:
    begun = len(current.requests)
    result = run(current, "--host", HOST, "--json", consent=False)
    assert not charged(current.requests[begun:])
    report = json.loads(result.stdout)
    assert (report["ok"], report["spent_usd"], result.exit_code) == (False, 0, 1)
    assert "--yes" in findings_of(result)["Questions"]["advice"]
    assert findings_of(result)["Octogen key"]["status"] == "ok"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_connection_that_breaks_leaves_the_answers_before_it(
    as_json: bool, current: Sandbox, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.0)
    others, is_cut = Deviating(current, lambda seen: seen), False

    def respond(request: Received) -> Iterable[bytes]:
        nonlocal is_cut
        is_cut = is_cut or request.target.startswith("/v1/products/lookup")
        return [b""] if is_cut else others.respond(request)

    with RawServer(respond) as server:
        arguments = ["--host", HOST, "--max-usd", "1", *(["--json"] if as_json else [])]
        result = run(Server(server.base_url, current.api_key), *arguments)
    assert result.exit_code == 1
    assert "Spent $0.07 and possibly $0.192 more of $1.00." in result.output
    before = QUESTIONS[: QUESTIONS.index("known product")]
    if as_json:
        answers, report = answers_of(result), json.loads(result.stdout)
        assert (report["ok"], report["spent_usd"]) == (False, 0.07)
        assert {answers[name]["status"] for name in before} == {"ok"}
        assert answers["known product"]["message"].startswith("no response from http://")
    else:
        assert all(f"\nok       {name}: " in result.output for name in before)


@contextmanager
def at_a_later_time(sandbox: Sandbox, *deviations: Deviation) -> Iterator[Server]:
    def deviate(seen: Exchange) -> Exchange:
        for each in deviations:
            seen = each(seen)
        return seen

    with RawServer(Deviating(sandbox, deviate).respond) as server:
        yield Server(server.base_url, sandbox.api_key)


BEFORE = computed(lambda _: "2026-11-20T10:00:00Z")
LATER_ON = computed(lambda _: "2026-11-21T10:00:00Z")
BACKWARDS, CHEAPER = page(items=backwards), each_item(currentPrice=1.0)


@pytest.mark.parametrize(
    ("deviations", "time", "order"),
    [
        ([BEFORE], ("ok", "has not changed since"), ("ok", "100 of 100 products")),
        ([LATER_ON], ("warning", "every field"), ("ok", "100 of 100 products")),
        ([LATER_ON, CHEAPER], ("ok", "and the first page have"), ("ok", "100 of 100 products")),
        ([BEFORE, BACKWARDS], ("ok", "has not changed since"), ("failed", "not indexed since")),
        ([LATER_ON, BACKWARDS], ("warning", "every field"), ("ok", "was indexed since")),
    ],
)
def test_a_later_run_compares_the_time_of_indexing_and_the_first_page(
    deviations: list[Deviation],
    time: tuple[str, str],
    order: tuple[str, str],
    current: Sandbox,
    run: Callable[..., Result],
    tmp_path: Path,
) -> None:
    report = tmp_path / "report.json"
    with at_a_later_time(current, BEFORE) as server:
        report.write_text(run(server, "--host", HOST, "--json").stdout)
    assert "kumo" not in str(json.loads(report.read_text())["evidence"])
    with at_a_later_time(current, *deviations) as server:
        result = run(server, "--host", HOST, "--compare", str(report), "--json")
    answers = answers_of(result)
    for (status_, said), name in zip((time, order), QUESTIONS[-2:], strict=True):
        assert (answers[name]["status"], said in answers[name]["message"]) == (status_, True)
    assert result.exit_code == int(order[0] == "failed")


def test_a_report_of_another_catalog_is_not_compared(
    current: Sandbox, run: Callable[..., Result], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    report.write_text(run(current, "--host", HOST, "--json").stdout)
    with Sandbox(catalogs={"strada": 50}) as other:
        result = run(other, "--host", other.hosts[0], "--compare", str(report), "--json")
    answers = answers_of(result)
    assert all("another catalog" in answers[name]["message"] for name in LATER)
