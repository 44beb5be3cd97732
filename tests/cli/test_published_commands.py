"""Octogen's published commands and ours give the same result in the same situation.

Each runs against a sandbox of its own in the same state. The published commands only know the
address of Google, so their client class gets a channel to the sandbox. Nothing else is changed.
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

from octogen_dagster.cli.bigquery import autosubscribe, subscribe
from octogen_dagster.control_plane.tokens import GivenToken
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.sharing import subscribe as subscribing
from octogen_dagster.sharing.hub import AnalyticsHub
from octogen_dagster.sharing.names import plan_subscription
from tests.api.clients import QUICK
from tests.servers.octogen_mcp import PRINCIPAL, PROJECT
from tests.sharing.hostile_hub import ABSENT, HubFault, hostile_hub
from tests.sharing.hostile_hub import HostileHub as Hub

pytestmark = pytest.mark.slow

PUBLISHED = importlib.metadata.distribution("octogen-ai-sdk").entry_points
OURS = {
    "octogen-bq-subscribe": subscribe,
    "octogen-bq-autosubscribe": autosubscribe,
}
READER = ["--project", PROJECT, "--principal", PRINCIPAL]
LISTINGS = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs/listings"

World = Callable[[Hub], object]


@dataclass
class Answer:
    """The outcome of a program: its exit status, its JSON, and whether it printed to stderr."""

    status: int
    result: Any
    complained: bool


@pytest.fixture
def both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[Answer]]:
    """A function that runs the published program and ours, each in a sandbox of its own."""

    def published(name: str, *arguments: str) -> tuple[int, str, str]:
        try:
            status: int = PUBLISHED[name].load()(list(arguments))
        except SystemExit as error:
            status = int(error.code or 0)
        return status, *capsys.readouterr()

    def ours(name: str, *arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(OURS[name], arguments, obj=QUICK)
        return done.exit_code, done.stdout, done.stderr

    def run(world: World, name: str, *arguments: str) -> list[Answer]:
        answers = []
        for program in (published, ours):
            with hostile_hub(catalogs=0) as hub, monkeypatch.context() as patch:
                for variable, value in hub.environment.items():
                    patch.setenv(variable, value)
                world(hub)
                channel = grpc.insecure_channel(hub.endpoint)
                client_class = ah.AnalyticsHubServiceClient
                transport = client_class.get_transport_class("grpc")(channel=channel)
                if program is published:
                    client = functools.partial(client_class, transport=transport)
                    patch.setattr(ah, "AnalyticsHubServiceClient", client)
                status, output, complaints = program(name, *arguments, "--json")
                channel.close()
            result = json.loads(output) if output else None
            for catalog in (result or {}).get("catalogs", []):
                catalog["message"] = catalog["message"] is not None
            answers.append(Answer(status, result, bool(complaints)))
        return answers

    return run


def registered(hub: Hub) -> OctogenMCP:
    octogen = OctogenMCP(GivenToken(hub.access_token), hub.mcp_url)
    with octogen:
        octogen.register(PROJECT, PRINCIPAL)
    return octogen


def subscribed(hub: Hub, catalog: str, dataset: str | None = None) -> None:
    """Subscribe to the listing of a catalog, and make Octogen check the subscription."""
    with AnalyticsHub(endpoint=hub.endpoint) as analytics_hub:
        plan = plan_subscription(hub.share(catalog), PROJECT, dataset)
        subscribing.subscribe(analytics_hub, plan)
    with registered(hub) as octogen:
        octogen.refresh_status(catalog, PRINCIPAL)


def in_order(*steps: World) -> World:
    """A world that is made by several steps."""

    def world(hub: Hub) -> None:
        for step in steps:
            step(hub)

    return world


def waiting(*steps: World) -> World:
    """A world with one catalog that awaits a subscription, and further steps."""
    return in_order(lambda hub: hub.share("acme"), registered, *steps)


def fault(kind: Any, value: Any = None, **selectors: Any) -> World:
    return lambda hub: hub.inject(HubFault(kind, value, **selectors))


def cells(**fields: Any) -> World:
    return fault("cell", fields)


def linked_dataset_in(place: Any) -> World:
    def world(hub: Hub) -> None:
        hub.settings.linked_dataset_in = place

    return world


def in_every_state(hub: Hub) -> None:
    for catalog in ("stale", "revoked", "removed", "mine"):
        subscribed(hub, catalog, "other_name" if catalog == "mine" else None)
    hub.make_stale("stale")
    hub.revoke_access("revoked")
    hub.remove_listing("removed")
    hub.share("not-yet", granted=False)
    hub.share("denied")
    hub.share("a.b-c")


def with_cells_of_every_kind(hub: Hub) -> None:
    states = [
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
    kinds: list[dict[str, Any]] = [
        {"status": status, "reasonCode": reason} for status, reason in states
    ]
    kinds += [
        {"listingResource": ABSENT},
        {"linkedDatasetSuggestion": None},
        {"location": ABSENT},
        {"subscriberId": "somebody-else"},
    ]
    for number, fields in enumerate(kinds):
        hub.share(f"catalog-{number:02}")
        hub.inject(HubFault("cell", fields, catalog=f"catalog-{number:02}"))
    registered(hub)


AUTOSUBSCRIBE: dict[str, World] = {
    "nothing is shared": lambda hub: None,
    "nobody is registered": lambda hub: (hub.share("zen"), hub.share("acme")),
    "catalogs in every state": in_every_state,
    "cells of every kind": with_cells_of_every_kind,
    "it is subscribed and Octogen does not know": waiting(
        lambda hub: subscribing.subscribe(
            AnalyticsHub(endpoint=hub.endpoint),
            plan_subscription(hub.listing_resource("acme"), PROJECT, "mine"),
        )
    ),
    "a refresh brings two fields": waiting(
        cells(reasonCode="known before"),
        fault(
            "cell",
            dict.fromkeys(("subscriberId", "reasonCode", "listingResource", "location"), ABSENT),
            method="refresh_bigquery_subscription_status",
        ),
    ),
    "values as text": waiting(fault("text_only")),
}

FAILURES: dict[str, World] = {
    "the grant is late": in_order(
        lambda hub: hub.revoke_access("acme"), cells(status="awaiting_subscription")
    ),
    "the listing has gone": fault("status", "NOT_FOUND", method="SubscribeListing"),
    "subscriptions cannot be listed": fault(
        "status", "PERMISSION_DENIED", method="ListSubscriptions"
    ),
    "Octogen does not look again": fault(
        "tool_error", "boom", method="refresh_bigquery_subscription_status"
    ),
    "Octogen still says pending": fault(
        "cell", {"status": "pending"}, method="refresh_bigquery_subscription_status"
    ),
    "a tool fails": fault("tool_error", "boom", method="list_bigquery_subscribers"),
    "a web page for an answer": fault("html"),
    "the token is refused": fault("unauthorized"),
    "the refresh token is refused": fault("http_status", 400, method="token"),
}


@pytest.mark.parametrize("apply", [False, True], ids=["dry run", "apply"])
@pytest.mark.parametrize("world", AUTOSUBSCRIBE.values(), ids=AUTOSUBSCRIBE)
def test_autosubscribe(both: Callable[..., list[Answer]], world: World, apply: bool) -> None:
    flags = ["--apply"] if apply else []
    published, ours = both(world, "octogen-bq-autosubscribe", *READER, *flags)
    assert ours == published


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_autosubscribe_when_something_fails(
    both: Callable[..., list[Answer]], failure: World
) -> None:
    published, ours = both(waiting(failure), "octogen-bq-autosubscribe", *READER, "--apply")
    assert ours == published


def test_a_denial_in_spite_of_the_grant_is_an_error_and_not_pending(
    both: Callable[..., list[Answer]],
) -> None:
    # On purpose: a scheduled command that ends well would hide a project without the right.
    denied = waiting(fault("status", "PERMISSION_DENIED", method="SubscribeListing"))
    published, ours = both(denied, "octogen-bq-autosubscribe", *READER, "--apply")
    assert (published.status, published.result["summary"]) == (0, {"pending": 1})
    assert (ours.status, ours.result["summary"]) == (1, {"error": 1})


def test_autosubscribe_for_some_catalogs(both: Callable[..., list[Answer]]) -> None:
    some = ["--catalog", "stale,a.b-c", "--catalog", "mine", "--friendly-name", "Mine"]
    published, ours = both(in_every_state, "octogen-bq-autosubscribe", *READER, *some, "--apply")
    assert ours == published
    assert len(ours.result["catalogs"]) == 3


def test_autosubscribe_without_a_login(
    both: Callable[..., list[Answer]],
) -> None:
    def logged_out(hub: Hub) -> None:
        del os.environ["OCTOGEN_MCP_REFRESH_TOKEN"]

    published, ours = both(logged_out, "octogen-bq-autosubscribe", *READER)
    assert ours == published == Answer(1, None, True)


SUBSCRIBE: dict[str, tuple[World, list[str]]] = {
    "a listing": (lambda hub: hub.share("acme"), []),
    "everything chosen": (
        lambda hub: hub.share("acme"),
        ["--dataset", "mine", "--location", "US", "--friendly-name", "Mine"],
    ),
    "it is subscribed": (lambda hub: subscribed(hub, "acme", "mine"), []),
    "it is stale": (
        in_order(lambda hub: subscribed(hub, "acme"), lambda hub: hub.make_stale("acme")),
        [],
    ),
    "it was revoked": (
        in_order(lambda hub: subscribed(hub, "acme"), lambda hub: hub.revoke_access("acme")),
        [],
    ),
    "the grant is late": (lambda hub: hub.share("acme", granted=False), []),
    "there is no such listing": (lambda hub: None, []),
    "another location": (lambda hub: hub.share("acme"), ["--location", "eu"]),
    "subscriptions cannot be listed": (
        waiting(fault("status", "PERMISSION_DENIED", method="ListSubscriptions")),
        [],
    ),
} | {
    f"the dataset is named in {place}": (
        in_order(linked_dataset_in(place), lambda hub: hub.share("acme")),
        [],
    )
    for place in ("linked_dataset_map", "destination_dataset")
}


@pytest.mark.parametrize(("world", "options"), SUBSCRIBE.values(), ids=SUBSCRIBE)
def test_subscribe(both: Callable[..., list[Answer]], world: World, options: list[str]) -> None:
    arguments = ["--listing", f"{LISTINGS}/acme", "--project", PROJECT, *options, "--apply"]
    published, ours = both(world, "octogen-bq-subscribe", *arguments)
    assert ours == published


@pytest.mark.parametrize("options", [[], ["--dataset", "mine", "--location", "US"]])
def test_a_dry_run_of_subscribe(both: Callable[..., list[Answer]], options: list[str]) -> None:
    arguments = ["--listing", f"{LISTINGS}/a.b-c", "--project", PROJECT, *options]
    published, ours = both(lambda hub: None, "octogen-bq-subscribe", *arguments)
    assert ours == published
    assert ours.result["applied"] is False


@pytest.mark.parametrize(
    "listing",
    ["", "acme", "projects/p/locations//dataExchanges/e/listings/l", f"{LISTINGS}/acme/more"],
)
def test_subscribe_to_what_is_no_listing(both: Callable[..., list[Answer]], listing: str) -> None:
    published, ours = both(
        lambda hub: None, "octogen-bq-subscribe", "--listing", listing, "--project", PROJECT
    )
    assert ours == published == Answer(2, None, True)


def test_the_refresh_names_the_schema_of_the_cell(both: Callable[..., list[Answer]]) -> None:
    hubs: list[Hub] = []
    world = waiting(cells(shareSchema="raw_products", schemaVersion="v2"), hubs.append)
    both(world, "octogen-bq-autosubscribe", *READER, "--apply")
    published, ours = (
        [call.arguments for call in hub.calls if call.method.startswith("refresh_")] for hub in hubs
    )
    assert ours == published
    assert (ours[0]["share_schema"], ours[0]["schema_version"]) == ("raw_products", "v2")


# The tests below show where the two differ; each docstring says what the published one does.


def actions(answer: Answer) -> list[tuple[str, str]]:
    return [(each["catalog_key"], each["action"]) for each in answer.result["catalogs"]]


@pytest.mark.parametrize("apply", [False, True], ids=["dry run", "apply"])
def test_a_disabled_subscriber_is_shown_a_query_that_can_be_run(
    both: Callable[..., list[Answer]], apply: bool
) -> None:
    """The published one shows a query with a placeholder for the project."""
    world = waiting(lambda hub: hub.inject(HubFault("subscriber", {"desiredState": "disabled"})))
    flags = ["--apply"] if apply else []
    published, ours = both(world, "octogen-bq-autosubscribe", *READER, *flags)
    (theirs,), (mine,) = published.result["catalogs"], ours.result["catalogs"]
    assert "`<your-project>." in theirs.pop("sample_query")
    assert f"`{PROJECT}." in mine.pop("sample_query")
    assert ours == published


def test_a_catalog_that_is_not_shared_is_reported(both: Callable[..., list[Answer]]) -> None:
    """The published one stops, and subscribes to none of the others."""
    typed = ["--catalog", "acme,typo"]
    published, ours = both(waiting(), "octogen-bq-autosubscribe", *READER, *typed)
    assert published == Answer(1, None, True)
    assert ours.status == 1
    assert actions(ours) == [("acme", "would_subscribe"), ("typo", "error")]


@pytest.mark.parametrize(
    "fields", [{"linkedDatasetSuggestion": "my-data"}, {"listingResource": "acme"}]
)
def test_a_dry_run_sees_what_cannot_work(
    both: Callable[..., list[Answer]], fields: dict[str, str]
) -> None:
    """The published dry run promises a subscription that its `--apply` cannot make."""
    world = waiting(cells(**fields))
    published, ours = both(world, "octogen-bq-autosubscribe", *READER)
    assert (published.status, actions(published)) == (0, [("acme", "would_subscribe")])
    assert (ours.status, actions(ours)) == (1, [("acme", "error")])
    published, ours = both(world, "octogen-bq-autosubscribe", *READER, "--apply")
    assert ours == published


@pytest.mark.parametrize("options", [["--dataset", "my-data"], ["--project", ""]])
def test_a_dry_run_of_names_that_cannot_be_ones(
    both: Callable[..., list[Answer]], options: list[str]
) -> None:
    """The published dry run accepts them."""
    arguments = ["--listing", f"{LISTINGS}/acme", "--project", PROJECT, *options]
    published, ours = both(lambda hub: hub.share("acme"), "octogen-bq-subscribe", *arguments)
    assert (published.status, ours.status) == (0, 2)


def test_somebody_elses_dataset_is_not_taken_for_the_listings(
    both: Callable[..., list[Answer]],
) -> None:
    """The published one takes any dataset of that name for the linked one."""
    world = waiting(lambda hub: hub.add_dataset(PROJECT, "octogen_acme"))
    published, ours = both(world, "octogen-bq-autosubscribe", *READER, "--apply")
    assert (published.status, actions(published)) == (0, [("acme", "already_subscribed")])
    assert (ours.status, actions(ours)) == (1, [("acme", "error")])
    arguments = ["--listing", f"{LISTINGS}/acme", "--project", PROJECT, "--apply"]
    published, ours = both(world, "octogen-bq-subscribe", *arguments)
    assert (published.status, published.result["already_subscribed"]) == (0, True)
    assert ours == Answer(1, None, True)


def test_a_project_by_its_number_is_the_same_project(
    both: Callable[..., list[Answer]],
) -> None:
    """The published one does not find the subscription, and guesses by the dataset's name."""

    def world(hub: Hub) -> None:
        subscribed(hub, "acme")
        hub.settings.listing_project = "number"

    arguments = ["--listing", f"{LISTINGS}/acme", "--project", PROJECT, "--apply"]
    published, ours = both(world, "octogen-bq-subscribe", *arguments)
    assert published.result["state"] == "ALREADY_EXISTS"
    assert published.result["subscription_name"] is None
    assert ours.result["state"] == "STATE_ACTIVE"
    assert ours.result["subscription_name"].startswith(f"projects/{PROJECT}/locations/us/subscr")
    differing = {"state", "subscription_name"}
    assert {k: v for k, v in ours.result.items() if k not in differing} == {
        k: v for k, v in published.result.items() if k not in differing
    }


def test_a_created_dataset_that_the_service_does_not_name_is_that_of_the_request(
    both: Callable[..., list[Answer]],
) -> None:
    def world(hub: Hub) -> None:
        hub.settings.linked_dataset_in = "neither"
        hub.share("acme")

    arguments = ["--listing", f"{LISTINGS}/acme", "--project", PROJECT, "--apply"]
    published, ours = both(world, "octogen-bq-subscribe", *arguments)
    assert published.result["linked_dataset"] == ours.result["linked_dataset"] == "octogen_acme"


@pytest.mark.parametrize(
    ("name", "hindrance"),
    [
        ("octogen-bq-subscribe", fault("status", "UNAVAILABLE", times=1)),
        ("octogen-bq-subscribe", fault("lost_response", method="SubscribeListing", times=1)),
        ("octogen-bq-autosubscribe", fault("rate_limit", 0, times=1)),
        ("octogen-bq-autosubscribe", fault("http_status", 503, times=1)),
        ("octogen-bq-autosubscribe", fault("http_status", 503, method="token", times=1)),
    ],
)
def test_a_hiccup_is_no_failure(
    both: Callable[..., list[Answer]], name: str, hindrance: World
) -> None:
    """The published ones never try again."""
    arguments = READER if "auto" in name else ["--listing", f"{LISTINGS}/acme", *READER[:2]]
    published, ours = both(waiting(hindrance), name, *arguments, "--apply")
    assert (published.status, ours.status) == (1, 0)


def test_an_access_token_that_expires_on_the_way_is_replaced(
    both: Callable[..., list[Answer]],
) -> None:
    """The published one gets one token and ends when it is refused."""
    world = waiting(fault("unauthorized", method="list_bigquery_subscribers", times=1))
    published, ours = both(world, "octogen-bq-autosubscribe", *READER, "--apply")
    assert (published.status, ours.status) == (1, 0)
