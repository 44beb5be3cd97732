"""`verify --google` asks whether what is believed of shared listings and their views is true."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.servers.bigquery import EXPORTED_AT, BigQueryServer, refused, serving
from tests.servers.google import EXCHANGE, PROJECT, Google
from tests.servers.octogen import Octogen

DOCUMENTED = (
    "uuid",
    "catalog_key",
    "product_url",
    "title",
    "brand",
    "current_price",
    "in_stock",
)
QUESTIONS = [
    "location of listings",
    "export restrictions",
    "columns of views",
    "exported_at",
    "dry run of queries",
]
VIEW = f"{PROJECT}.octogen_acme.products_current_v1"
Answers = dict[str, dict[str, str]]


class World:
    """Octogen's MCP, Analytics Hub and BigQuery: two listings, with a linked dataset of one."""

    def __init__(self) -> None:
        self.octogen = Octogen()
        self.google = Google(listings=[])
        for catalog in ("acme", "zephyr"):
            self.octogen.share(catalog)
            self.google.listings.append(ah.Listing(name=f"{EXCHANGE}/listings/{catalog}"))
        self.google.add(f"{EXCHANGE}/listings/acme", "octogen_acme")
        self.bigquery = BigQueryServer()
        self.has(*DOCUMENTED, more=[EXPORTED_AT])

    def has(self, *columns: str, more: list[dict[str, str]] | None = None, **facts: Any) -> None:
        """Let the view have these columns."""
        self.bigquery.fields = [{"name": name, "type": "STRING"} for name in columns] + (more or [])
        self.bigquery.share(VIEW, **{"location": "US", **facts})

    def restrict(self, **config: bool) -> None:
        restricted = ah.Listing.RestrictedExportConfig(enabled=True, **config)
        self.google.listings[0].restricted_export_config = restricted


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"kumo": 20}, hub=True) as running:
        yield running


@pytest.fixture
def verify(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs the command against the sandbox."""
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", sandbox.api_key)
    monkeypatch.setenv("OCTOGEN_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    return lambda *arguments: CliRunner().invoke(main, ["verify", "--google", *arguments])


@pytest.fixture
def run(
    world: World,
    verify: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Result]]:
    """`verify` with the servers of the world in the environment."""
    with (
        serving(world.bigquery, tmp_path),
        world.google.running() as endpoint,
        world.octogen.running(),
    ):
        for name, value in world.octogen.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", world.octogen.access_token)
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        yield verify


def answers_of(result: Result) -> Answers:
    report = json.loads(result.stdout)
    answers = {each["question"]: each for each in report["answers"]}
    assert list(answers)[-5:] == QUESTIONS
    return {name: answers[name] for name in QUESTIONS}


def test_what_is_documented_holds_and_nothing_is_paid(
    world: World, run: Callable[..., Result]
) -> None:
    world.bigquery.estimate = 2 * 10**9
    result = run("--json")
    seen = {name: (each["verdict"], each["seen"]) for name, each in answers_of(result).items()}
    assert seen == {
        "location of listings": (
            "holds",
            "listings: 2, in US; linked views: 1; all where they are said to be.",
        ),
        "export restrictions": ("holds", "listings that restrict exports: 0 of 2."),
        "columns of views": ("holds", "views: 1; columns besides the 7 documented: 1."),
        "exported_at": ("holds", "views: 1; without dates in such a column: 0."),
        "dry run of queries": (
            "holds",
            "views: 1; queries that may be run: 2; the largest reads 2.00 GB, $0.0114 by Google's "
            "list price.",
        ),
    }
    assert result.exit_code == 0
    assert (world.bigquery.inserted, world.bigquery.billed, world.google.requests) == ([], 0, [])


def wrong_location(world: World) -> None:
    world.octogen.listings[0]["location"] = "EU"


def moved_view(world: World) -> None:
    world.has(*DOCUMENTED, more=[EXPORTED_AT], location="EU")


def restricted(world: World) -> None:
    world.restrict(restrict_query_result=True)


def fewer_columns(world: World) -> None:
    world.has(*DOCUMENTED[:-1], more=[EXPORTED_AT])


def odd_column(world: World) -> None:
    world.has(*DOCUMENTED, more=[EXPORTED_AT, {"name": "size", "type": "INTERVAL"}])


def no_dates(world: World) -> None:
    world.has(*DOCUMENTED, "exported_at")


def large(world: World) -> None:
    world.bigquery.estimate = 200 * 10**9


@pytest.mark.parametrize(
    ("question", "seen", "change"),
    [
        ("location of listings", "elsewhere than said: 1", wrong_location),
        ("location of listings", "elsewhere than said: 1", moved_view),
        ("export restrictions", "restrict exports: 1 of 2", restricted),
        ("columns of views", "missing: in_stock", fewer_columns),
        ("columns of views", "cannot be read as they are: 1", odd_column),
        ("exported_at", "without dates in such a column: 1", no_dates),
        ("dry run of queries", "above the limit: 2", large),
    ],
)
def test_what_breaks_a_belief_turns_its_answer(
    question: str,
    seen: str,
    change: Callable[[World], None],
    world: World,
    run: Callable[..., Result],
) -> None:
    change(world)
    result = run("--json")
    answer = answers_of(result)[question]
    assert (answer["verdict"], result.exit_code) == ("differs", 1), answer
    assert seen in answer["seen"]
    assert answer["concerns"]


def test_a_query_that_bigquery_refuses_differs(
    world: World, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        world.bigquery, "_insert", lambda _: refused(400, "invalidQuery", "Not a GROUP BY")
    )
    answer = answers_of(run("--json", "--details"))["dry run of queries"]
    assert answer["verdict"] == "differs"
    assert "Not a GROUP BY" in answer["details"]


def test_exports_that_do_not_concern_a_snapshot_hold(
    world: World, run: Callable[..., Result]
) -> None:
    world.restrict(restrict_direct_table_access=True)
    answer = answers_of(run("--json"))["export restrictions"]
    assert answer["verdict"] == "holds"
    assert "1 of 2 (enabled, restrict_direct_table_access)" in answer["seen"]


def test_the_report_names_no_listing_unless_asked(world: World, run: Callable[..., Result]) -> None:
    wrong_location(world)
    no_dates(world)
    for report in (run(), run("--json")):
        assert report.exit_code == 1
        assert not any(name in report.output for name in ("acme", PROJECT, "dataExchanges"))
    assert f"Details: {VIEW}" in run("--details").output


def test_it_says_first_what_google_is_asked(run: Callable[..., Result]) -> None:
    plan, _, report = run().output.partition("All of them cost at most")
    assert "5 questions to Octogen's MCP and Google" in plan
    assert all(f"  {question}" in plan for question in QUESTIONS)
    assert "pasted into an issue" in report


def no_project(monkeypatch: pytest.MonkeyPatch, _: World) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")


def no_login(monkeypatch: pytest.MonkeyPatch, _: World) -> None:
    monkeypatch.delenv("OCTOGEN_MCP_ACCESS_TOKEN")
    monkeypatch.setenv("HOME", "/no/home")


def no_listing(_: pytest.MonkeyPatch, world: World) -> None:
    world.octogen.listings.clear()


def refused_hub(_: pytest.MonkeyPatch, world: World) -> None:
    world.google.refuse("ListSubscriptions", "PERMISSION_DENIED", times=3)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("set GOOGLE_CLOUD_PROJECT", no_project),
        ("`octogen-dagster login` logs in", no_login),
        ("Octogen shares no listing", no_listing),
        ("Google refused it or did not answer", refused_hub),
    ],
)
def test_without_a_project_a_login_or_a_grant_nothing_is_asked(
    reason: str,
    change: Callable[[pytest.MonkeyPatch, World], None],
    world: World,
    run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(monkeypatch, world)
    result = run("--json")
    assert {each["verdict"] for each in answers_of(result).values()} == {"not asked"}
    assert all(reason in each["seen"] for each in answers_of(result).values())
    assert result.exit_code == 0


def test_without_a_linked_dataset_its_view_is_not_asked(
    world: World, run: Callable[..., Result]
) -> None:
    world.google.subscriptions.clear()
    answers = answers_of(run("--json"))
    asked = [name for name, each in answers.items() if each["verdict"] == "holds"]
    assert asked == ["location of listings", "export restrictions"]
    assert "materialize a linked dataset first" in answers["exported_at"]["seen"]


def test_a_view_that_may_not_be_read_leaves_the_others(
    world: World, run: Callable[..., Result]
) -> None:
    world.google.add(f"{EXCHANGE}/listings/zephyr", "octogen_zephyr", name="s-2")
    answers = answers_of(run("--json", "--details"))
    assert "views: 1, not readable: 1" in answers["columns of views"]["seen"]
    assert "octogen_zephyr" in answers["columns of views"]["details"]


def test_a_project_that_is_none_is_bad_input(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my project")
    result = run()
    assert (result.exit_code, "'my project' is invalid" in result.output) == (2, True)


def test_the_sandbox_is_asked_about_its_views(
    sandbox: Sandbox, verify: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    listing = sandbox.hub.share("kumo")
    answers = answers_of(verify("--json"))
    asked = {name: each["verdict"] for name, each in answers.items()}
    assert asked == dict.fromkeys(QUESTIONS[:2], "holds") | dict.fromkeys(
        QUESTIONS[2:], "not asked"
    )
    assert "materialize a linked dataset first" in answers["exported_at"]["seen"]
    sandbox.hub.subscribe(listing, PROJECT, "octogen_kumo")
    answers = answers_of(verify("--json"))
    assert {each["verdict"] for each in answers.values()} == {"holds"}
