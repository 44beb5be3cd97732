"""A project is subscribed to a listing once, whatever becomes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner, Result

from octogen_dagster import BigQuerySubscriptionResult, subscribe_to_listing
from octogen_dagster.cli.main import main
from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
    Persistence,
)
from tests.messages import Golden
from tests.servers.google import (
    BY_NUMBER,
    DATASET,
    FIELDS,
    LISTING,
    PROJECT,
    REVOKED,
    STALE,
    Google,
)

QUERY = f"SELECT * FROM `{PROJECT}.{DATASET}.products_current_v1` LIMIT 10;"
TAKEN = (
    f"Listing {LISTING} could not be linked, because project {PROJECT} already has a dataset "
    f"{DATASET}"
)

Subscribe = Callable[..., BigQuerySubscriptionResult]


pytestmark = pytest.mark.usefixtures("quick_google")


@pytest.fixture
def subscribe(monkeypatch: pytest.MonkeyPatch) -> Subscribe:
    """Subscribe to the listing at a `Google`."""

    def subscribe(google: Google, **arguments: Any) -> BigQuerySubscriptionResult:
        names: dict[str, Any] = {"listing_resource": LISTING, "destination_project": PROJECT}
        with google.running() as endpoint:
            monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
            return subscribe_to_listing(**names | arguments)

    return subscribe


def test_a_listing_becomes_a_linked_dataset_once(subscribe: Subscribe) -> None:
    google = Google()
    first = subscribe(google)
    assert first == BigQuerySubscriptionResult(
        listing_resource=LISTING,
        linked_project=PROJECT,
        linked_dataset=DATASET,
        state="STATE_ACTIVE",
        already_subscribed=False,
        subscription_name=google.subscriptions[0].name,
        sample_query=QUERY,
    )
    (request,) = google.requests
    assert request.destination_dataset.location == "us"
    assert request.destination_dataset.friendly_name == f"Octogen {DATASET}"
    again = subscribe(google)
    assert (again.already_subscribed, again.subscription_name) == (True, first.subscription_name)
    assert google.calls == ["ListSubscriptions", "SubscribeListing", "ListSubscriptions"]


def test_dataset_location_and_name_can_be_chosen(subscribe: Subscribe) -> None:
    google = Google()
    chosen = {"destination_dataset_id": "mine", "location": "US", "friendly_name": "Acme"}
    assert subscribe(google, **chosen).linked_dataset == "mine"
    wanted = google.requests[0].destination_dataset
    assert (wanted.location, wanted.friendly_name) == ("US", "Acme")


@pytest.mark.parametrize(("state", "names"), [(STALE, FIELDS), (STALE, FIELDS[:1])])
def test_a_subscription_in_force_is_returned_whatever_its_dataset_is_called(
    state: Any, names: tuple[str, ...], subscribe: Subscribe
) -> None:
    google = Google(names_the_dataset=names)
    name = google.add(dataset="mine", state=state)
    result = subscribe(google)
    assert (result.already_subscribed, result.subscription_name) == (True, name)
    assert (result.state, result.linked_dataset) == ("STATE_STALE", "mine")
    assert result.sample_query.startswith(f"SELECT * FROM `{PROJECT}.mine.")


def test_of_several_subscriptions_the_one_with_the_wanted_dataset_is_returned(
    subscribe: Subscribe,
) -> None:
    google = Google()
    google.add(dataset="old", state=STALE, name="s-0")
    google.add(dataset="one", name="s-1")
    google.add(dataset="two", name="s-2")
    assert subscribe(google, destination_dataset_id="two").linked_dataset == "two"
    assert subscribe(google).linked_dataset == "one"


@pytest.mark.parametrize("by_number", [False, True])
@pytest.mark.parametrize("listing", [LISTING, BY_NUMBER])
def test_a_project_s_number_and_its_id_are_the_same_project(
    listing: str, by_number: bool, subscribe: Subscribe
) -> None:
    google = Google(by_number=by_number)
    google.add()
    result = subscribe(google, listing_resource=listing)
    assert (result.already_subscribed, result.listing_resource) == (True, listing)
    assert google.calls == ["ListSubscriptions"]


@pytest.mark.parametrize(
    "other", [LISTING.replace("/catalogs/", "/staging/"), LISTING.replace("acme", "zen")]
)
def test_a_subscription_to_another_listing_is_not_taken_for_it(
    other: str, subscribe: Subscribe
) -> None:
    google = Google()
    google.add(other, "other")
    assert not subscribe(google).already_subscribed


def test_the_query_names_the_project_s_id_where_google_sends_its_number(
    subscribe: Subscribe,
) -> None:
    google = Google()
    google.add(project="123456789012")
    result = subscribe(google)
    assert (result.linked_project, result.sample_query) == (PROJECT, QUERY)


@pytest.mark.parametrize("names", [FIELDS, *[(name,) for name in FIELDS], ()])
def test_the_linked_dataset_is_read_from_any_field(
    golden: Golden, names: tuple[str, ...], subscribe: Subscribe
) -> None:
    google = Google(names_the_dataset=names)
    assert subscribe(google, destination_dataset_id="mine").linked_dataset == "mine"
    if names:
        assert subscribe(google).linked_dataset == "mine"
        return
    with golden.raises(OctogenBigQueryError) as error:
        subscribe(google)
    assert google.subscriptions[0].name in str(error.value)
    assert len(google.subscriptions) == 1


@pytest.mark.parametrize("lag", [0, 4])
def test_a_lost_answer_is_found_in_a_list_that_lags_behind(lag: int, subscribe: Subscribe) -> None:
    google = Google(lost=1, lag=lag)
    result = subscribe(google)
    assert (result.linked_dataset, result.state) == (DATASET, "STATE_ACTIVE")
    assert result.already_subscribed
    assert len(google.subscriptions) == 1


def test_a_dataset_that_is_being_deleted_is_waited_for(subscribe: Subscribe) -> None:
    google = Google(datasets={DATASET}, lag=0)
    google.refuse("SubscribeListing", "ALREADY_EXISTS", times=2)
    google.datasets.clear()
    assert not subscribe(google).already_subscribed


def test_two_programs_at_once_subscribe_once(subscribe: Subscribe) -> None:
    google = Google()
    with google.running() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        with ThreadPoolExecutor() as pool:
            results = list(
                pool.map(
                    lambda _: subscribe_to_listing(
                        listing_resource=LISTING, destination_project=PROJECT
                    ),
                    range(4),
                )
            )
    assert sum(not result.already_subscribed for result in results) == 1
    assert {result.subscription_name for result in results} == {google.subscriptions[0].name}


def test_a_dataset_that_is_taken_is_an_error_that_names_the_argument(
    golden: Golden, subscribe: Subscribe
) -> None:
    google = Google(datasets={DATASET})
    with pytest.raises(OctogenBigQueryError) as caught:
        subscribe(google)
    golden("errors", caught.value)
    assert caught.value.persistence is Persistence.PERMANENT
    assert google.datasets == {DATASET}
    assert subscribe(google, destination_dataset_id="mine").linked_dataset == "mine"


LEFTOVERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "revoked": ({}, [{"state": REVOKED}]),
    "no state": ({}, [{"state": 0}]),
    "unknown state": ({}, [{"state": 7}]),
    "another dataset": ({"datasets": {DATASET}}, [{"state": REVOKED, "dataset": "mine"}]),
    "two": ({}, [{"state": REVOKED}, {"state": 7, "name": "s-2"}]),
    "no dataset named": ({"names_the_dataset": ()}, [{"state": REVOKED}]),
}
"""A hub, and the subscriptions in it that are not in force."""


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_a_subscription_that_is_not_in_force_is_named_and_not_deleted(
    golden: Golden, leftover: str, subscribe: Subscribe
) -> None:
    settings, subscriptions = LEFTOVERS[leftover]
    google = Google(**settings)
    names = [google.add(**each) for each in subscriptions]
    with pytest.raises(OctogenBigQueryError) as caught:
        subscribe(google)
    assert str(caught.value).startswith(TAKEN)
    golden("errors", caught.value)
    assert caught.value.persistence is Persistence.PERMANENT
    assert [each.name for each in google.subscriptions] == names


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED"]
)
@pytest.mark.parametrize("method", ["ListSubscriptions", "SubscribeListing"])
def test_a_failure_that_passes_is_no_failure(method: str, code: str, subscribe: Subscribe) -> None:
    google = Google()
    google.refuse(method, code, times=2)
    assert subscribe(google).linked_dataset == DATASET
    assert google.calls.count(method) == 3


@pytest.mark.parametrize(
    "code", ["NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED", "FAILED_PRECONDITION"]
)
def test_a_refusal_is_explained_at_once(golden: Golden, code: str, subscribe: Subscribe) -> None:
    google = Google()
    google.refuse("SubscribeListing", code)
    with pytest.raises(OctogenBigQueryError) as caught:
        subscribe(google)
    golden("errors", caught.value)
    assert not isinstance(caught.value, OctogenBigQueryUnavailableError)
    assert google.calls.count("SubscribeListing") == 1


# The command.


def run(google: Google, *arguments: str) -> Result:
    with google.running() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        names = ["--listing", LISTING, "--project", PROJECT]
        return CliRunner().invoke(main, ["bq", "subscribe", *names, *arguments])


def test_the_command_prints_what_it_would_do_and_what_it_did() -> None:
    google = Google()
    dry = run(google)
    assert (dry.exit_code, dry.stderr, google.calls) == (0, "", [])
    assert dry.stdout.splitlines() == [
        "Dry run: nothing is changed. To apply this plan, add --apply.",
        f"Listing: {LISTING}",
        f"Linked dataset: {PROJECT}.{DATASET} in us",
        f"Then try: {QUERY}",
    ]
    for word in ("Subscribed", "Already subscribed"):
        done = run(google, "--apply")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"{word}: {PROJECT}.{DATASET} (STATE_ACTIVE)",
            f"Try: {QUERY}",
        ]


def test_a_dry_run_prints_json() -> None:
    options = ["--dataset", "mine", "--location", "US", "--friendly-name", "Acme", "--json"]
    assert json.loads(run(Google(), *options).stdout) == {
        "applied": False,
        "listing": LISTING,
        "linked_project": PROJECT,
        "linked_dataset": "mine",
        "location": "US",
        "sample_query": QUERY.replace(DATASET, "mine"),
    }
