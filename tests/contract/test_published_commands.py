"""Octogen's published commands and ours give the same result in the same situation.

Each runs against servers of its own in the same state. The published commands only know the
address of Google, so their client class gets a channel to the server. Nothing else is changed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.cli.commands.bq import autosubscribe, subscribe
from tests.api.servers import http
from tests.servers.google import DATASET, FIELDS, LISTING, STALE, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, PROJECT, reply, text_result

pytestmark = pytest.mark.slow

PUBLISHED = importlib.metadata.distribution("octogen-ai-sdk").entry_points
SUBSCRIBE, AUTOSUBSCRIBE = "octogen-bq-subscribe", "octogen-bq-autosubscribe"
OURS = {SUBSCRIBE: subscribe, AUTOSUBSCRIBE: autosubscribe}
READER = ["--project", PROJECT, "--principal", PRINCIPAL]
ONE = ["--listing", LISTING, "--project", PROJECT]
LISTINGS, SUBSCRIBERS, REFRESH = (
    "list_bigquery_listing_resources",
    "list_bigquery_subscribers",
    "refresh_bigquery_subscription_status",
)

World = Callable[[Google, Octogen], object]


@dataclass
class Answer:
    """The outcome of a program: its exit status, its JSON, and whether it printed to stderr."""

    status: int
    result: Any
    complained: bool


Both = Callable[..., list[Answer]]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Both:
    """A function that runs the published program and ours, each with servers of its own."""
    monkeypatch.setenv("HOME", "/no/home")
    monkeypatch.setattr("octogen_dagster.sharing.subscribe.WAITS", (0.01,))
    quick = RetryPolicy(attempts=3, first_delay=0.001, max_delay=0.01)
    monkeypatch.setattr("octogen_dagster.control_plane.tokens.DEFAULT_RETRY", quick)

    def published(name: str, *arguments: str) -> tuple[int, str, str]:
        try:
            status: int = PUBLISHED[name].load()(list(arguments))
        except SystemExit as error:
            status = int(error.code or 0)
        return status, *capsys.readouterr()

    def ours(name: str, *arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(OURS[name], arguments)
        return done.exit_code, done.stdout, done.stderr

    def run(world: World, name: str, *arguments: str) -> list[Answer]:
        answers = []
        for program in (published, ours):
            google, octogen = Google(), Octogen()
            octogen.rotates = False
            with (
                google.running() as endpoint,
                octogen.running(),
                grpc.insecure_channel(endpoint) as channel,
                monkeypatch.context() as patch,
            ):
                login = {"OCTOGEN_MCP_REFRESH_TOKEN": octogen.refresh_token}
                address = {"ANALYTICS_HUB_EMULATOR_HOST": endpoint}
                client = {"OCTOGEN_MCP_CLIENT_ID": CLIENT}
                for variable, value in (octogen.environment | login | client | address).items():
                    patch.setenv(variable, value)
                world(google, octogen)
                client_class = ah.AnalyticsHubServiceClient
                transport = client_class.get_transport_class("grpc")(channel=channel)
                if program is published:
                    connected = functools.partial(client_class, transport=transport)
                    patch.setattr(ah, "AnalyticsHubServiceClient", connected)
                status, output, complaints = program(name, *arguments, "--json")
            result = json.loads(output) if output else None
            for catalog in (result or {}).get("catalogs", []):
                catalog["message"] = catalog["message"] is not None
            answers.append(Answer(status, result, bool(complaints)))
        return answers

    return run


def waiting(*steps: World, **cell: Any) -> World:
    """A world with one catalog that awaits a subscription, and further steps."""

    def world(google: Google, octogen: Octogen) -> None:
        octogen.register().share("acme", **cell)
        for step in steps:
            step(google, octogen)

    return world


def refused(method: str, code: str, times: int = 1) -> World:
    return lambda google, _: google.refuse(method, code, times)


def failing(name: str, answer: Any, times: int = 1000) -> World:
    return lambda _, octogen: octogen.fail(name, answer, times)


def named_in(fields: tuple[str, ...]) -> World:
    return lambda google, _: setattr(google, "names_the_dataset", fields)


def tool_error(tool: str) -> World:
    return lambda _, octogen: octogen.tools.update({tool: {"error": "boom", "message": "Boom."}})


def with_cells_of_every_kind(_: Google, octogen: Octogen) -> None:
    states: list[dict[str, Any]] = [
        {"status": status, "reasonCode": reason}
        for status, reason in [
            ("preparing", "preparing"),
            ("melted", None),
            (None, None),
            ("removing", "removing"),
            ("pending", None),
            ("pending", "needs_attention"),
            ("pending", "catalog_not_enabled"),
            ("pending", "scope_revoked"),
            ("pending", "removing"),
            ("refresh_failed", None),
            ("access_grant_failed", "needs_attention"),
            ("active", "removing"),
            ("source_stale", None),
        ]
    ]
    odd = [{"listingResource": None}, {"linkedDatasetSuggestion": None}, {"location": None}]
    for number, fields in enumerate([*states, *odd, {"subscriberId": "somebody-else"}]):
        octogen.share(f"catalog_{number:02}", **{"status": "awaiting_subscription"} | fields)
    octogen.register()


PASSES: dict[str, World] = {
    "nothing is shared": lambda *_: None,
    "nobody is registered": lambda _, octogen: (octogen.share("zen"), octogen.share("acme")),
    "cells of every kind": with_cells_of_every_kind,
    "it is subscribed and Octogen does not know": waiting(
        lambda google, _: google.add(dataset="mine")
    ),
    "a reason was known before": waiting(reasonCode="known before"),
    "values as text": waiting(
        lambda _, octogen: octogen.fail(
            LISTINGS,
            lambda request: reply(request, text_result(json.dumps(octogen.listings))),
            times=2,
        )
    ),
}

FAILURES: dict[str, World] = {
    "the grant is late": lambda google, _: setattr(google, "granted", False),
    "the listing has gone": refused("SubscribeListing", "NOT_FOUND"),
    "subscriptions cannot be listed": refused("ListSubscriptions", "PERMISSION_DENIED"),
    "Octogen does not look again": tool_error(REFRESH),
    "Octogen still says pending": lambda _, octogen: octogen.tools.update(
        {REFRESH: {"catalogKey": "acme", "status": "pending"}}
    ),
    "a tool fails": tool_error(SUBSCRIBERS),
    "a web page for an answer": failing("initialize", http(200, "<!doctype html>")),
    "the token is refused": failing("initialize", http(401)),
    "the refresh token is refused": failing("token", http(400, {"error": "invalid_grant"})),
}


@pytest.mark.parametrize("flags", [[], ["--apply"]], ids=["dry run", "apply"])
@pytest.mark.parametrize("world", PASSES.values(), ids=PASSES)
def test_autosubscribe(both: Both, world: World, flags: list[str]) -> None:
    published, ours = both(world, AUTOSUBSCRIBE, *READER, *flags)
    assert ours == published


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_autosubscribe_when_something_fails(both: Both, failure: World) -> None:
    published, ours = both(waiting(failure), AUTOSUBSCRIBE, *READER, "--apply")
    assert ours == published


def test_autosubscribe_without_a_login(both: Both) -> None:
    def logged_out(*_: object) -> None:
        del os.environ["OCTOGEN_MCP_REFRESH_TOKEN"]  # the block that set it puts it back

    published, ours = both(logged_out, AUTOSUBSCRIBE, *READER)
    assert ours == published == Answer(1, None, True)


LISTING_WORLDS: dict[str, tuple[World, list[str]]] = {
    "a listing": (lambda *_: None, []),
    "everything chosen": (
        lambda *_: None,
        ["--dataset", "mine", "--location", "US", "--friendly-name", "Mine"],
    ),
    "it is subscribed": (lambda google, _: google.add(dataset="mine"), []),
    "it is stale": (lambda google, _: google.add(state=STALE), []),
    "the grant is late": (lambda google, _: setattr(google, "granted", False), []),
    "there is no such listing": (refused("SubscribeListing", "NOT_FOUND"), []),
    "another location": (lambda *_: None, ["--location", "eu"]),
    "subscriptions cannot be listed": (refused("ListSubscriptions", "PERMISSION_DENIED"), []),
    **{
        f"the dataset is named in {names}": (named_in(names), [])
        for names in [FIELDS[:1], FIELDS[1:], ()]
    },
}


@pytest.mark.parametrize(
    ("world", "options"), LISTING_WORLDS.values(), ids=[str(each) for each in LISTING_WORLDS]
)
def test_subscribe(both: Both, world: World, options: list[str]) -> None:
    published, ours = both(world, SUBSCRIBE, *ONE, *options, "--apply")
    assert ours == published


# Where the two differ, each docstring says what the published one does.


def test_a_denial_in_spite_of_the_grant_is_an_error_and_not_pending(both: Both) -> None:
    """A scheduled command that ends well would hide a project without the right."""
    denied = waiting(refused("SubscribeListing", "PERMISSION_DENIED"))
    published, ours = both(denied, AUTOSUBSCRIBE, *READER, "--apply")
    assert (published.status, published.result["summary"]) == (0, {"pending": 1})
    assert (ours.status, ours.result["summary"]) == (1, {"error": 1})


def test_somebody_elses_dataset_is_not_taken_for_the_listings(both: Both) -> None:
    """The published one takes any dataset of that name for the linked one."""
    world = waiting(lambda google, _: google.datasets.add(DATASET))
    published, ours = both(world, AUTOSUBSCRIBE, *READER, "--apply")
    assert (published.status, published.result["summary"]) == (0, {"already_subscribed": 1})
    assert (ours.status, ours.result["summary"]) == (1, {"error": 1})
