"""A dataset id that is taken: by a lost answer, a leftover, another listing or somebody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryUnavailableError
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult, Subscriptions
from octogen_dagster.sharing.subscription_plan import plan_subscription
from tests.bigquery.rest_api import refused
from tests.sharing.google import (
    DEFAULT,
    ELSEWHERE,
    LISTING,
    PROJECT,
    REVOKED,
    SHARED,
    SIBLING,
    Google,
    linked,
    running,
    subscription,
)

DIGEST = "octogen_acme_7af75c2a"
DENIED = refused(403, "accessDenied", "Access Denied")
ORDINARY = 200, {"type": "DEFAULT", "location": "US"}
CHOOSE = "choose another dataset id with dataset_id= (--dataset on a command line)."
TAKEN = f"Listing {LISTING}: project {PROJECT} already has a dataset {DEFAULT}"
WAITS = Subscriptions.waits  # those of a user; fixtures set others


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BigQuerySubscriptionResult]:
    """Subscribes a project of a `Google` to the listing, looking three times without waiting."""
    monkeypatch.setattr(Subscriptions, "waits", (0, 0))

    def subscribe(google: Google, **settings: Any) -> BigQuerySubscriptionResult:
        replace = settings.pop("replace", False)
        with running(google, monkeypatch) as endpoint, AnalyticsHub(endpoint=endpoint) as hub:
            return Subscriptions(hub).subscribe(
                plan_subscription(LISTING, PROJECT, **settings),
                replacing=(lambda *_: None) if replace else None,
            )

    return subscribe


Settle = Callable[..., BigQuerySubscriptionResult]


def test_a_lost_answer_is_found_in_a_list_that_lags(settle: Settle) -> None:
    google = Google(listed=[[], [], [subscription()]], dataset=[linked()])
    result = settle(google)
    assert (result.already_subscribed, result.linked_dataset) == (True, DEFAULT)
    assert result.subscription_name == "projects/1/locations/us/subscriptions/s-1"
    assert google.calls == ["list", "subscribe", "list", "dataset 200", "list"]


def test_what_is_just_created_or_deleted_is_subscribed_to_once_it_is_free(settle: Settle) -> None:
    google = Google(refusals=2)
    assert settle(google).already_subscribed is False
    assert google.calls == ["list", "subscribe", *["list", "dataset 404", "subscribe"] * 2]


def test_a_created_subscription_that_does_not_name_its_dataset_has_that_of_the_plan(
    settle: Settle,
) -> None:
    google = Google(refusals=0, names_the_dataset=False)
    result = settle(google)
    assert (result.already_subscribed, result.linked_dataset) == (False, DEFAULT)


def revoked(dataset: str = DEFAULT) -> ah.Subscription:
    return subscription(dataset=dataset, state=REVOKED, name="old")


@pytest.mark.parametrize("lag", [0, 2], ids=["gone at once", "lagging"])
def test_a_leftover_that_was_deleted_is_waited_for(lag: int, settle: Settle) -> None:
    still_there = linked("projects/123/datasets/what_the_listing_shared_before")
    listed = [[revoked()]] * (2 + lag)
    google = Google(listed=[*listed, []], dataset=[still_there], refusals=1 + lag)
    result = settle(google, replace=True)
    assert (result.already_subscribed, result.linked_dataset) == (False, DEFAULT)
    assert google.calls == [
        *("list", "subscribe", "list", "delete old", "subscribe"),
        *["list", "subscribe"] * lag,
    ]


def test_leftovers_without_an_end_are_not_deleted_without_an_end(settle: Settle) -> None:
    names = [f"s-{number}" for number in range(20)]
    listed = [[subscription(state=REVOKED, name=name)] for name in names]
    google = Google(listed=listed, refusals=100)
    with pytest.raises(OctogenBigQueryUnavailableError, match="is still there, although"):
        settle(google, replace=True)
    assert sum(call.startswith("delete") for call in google.calls) == 3


@pytest.mark.parametrize("where", ["source", "exchange", "exchange, denied", "region"])
def test_a_default_id_that_another_listing_has_gets_a_digest(where: str, settle: Settle) -> None:
    google = Google()
    if where == "source":
        google.dataset = [linked("projects/123/datasets/other")]
    elif where == "region":
        google.dataset = [linked("projects/octo/datasets/acme_v1", location="EU")]
        google.elsewhere = [subscription(ELSEWHERE)]
    else:
        google.dataset = [DENIED if "denied" in where else linked()]
        google.listed = [[subscription(SIBLING)]]
    result = settle(google)
    assert (result.already_subscribed, result.linked_dataset) == (False, DIGEST)
    first, second = (request.destination_dataset for request in google.requests)
    assert first.dataset_reference.dataset_id == DEFAULT
    assert second.dataset_reference.dataset_id == DIGEST
    assert second.friendly_name == f"Octogen {DIGEST}"
    google.listed = [[subscription(SIBLING), subscription(dataset=DIGEST, name="s-2")]]
    assert settle(google).linked_dataset == DIGEST
    assert len(google.requests) == 2


def test_an_id_with_a_digest_that_another_listing_has_is_an_error(settle: Settle) -> None:
    google = Google(dataset=[linked("projects/123/datasets/other")], refusals=100)
    with pytest.raises(OctogenBigQueryError, match=f"already has a dataset {DIGEST}, which is lin"):
        settle(google)


def test_a_revoked_subscription_that_may_be_to_the_listing_is_not_another_s(
    settle: Settle,
) -> None:
    number = LISTING.replace("/octo/", "/123/")
    google = Google(
        listed=[[subscription(number, state=REVOKED)]], dataset=[linked()], visible=False
    )
    with pytest.raises(OctogenBigQueryUnavailableError, match=f"is linked to {SHARED}, and no sub"):
        settle(google)


def test_an_id_that_octogen_suggests_gets_a_digest_too(settle: Settle) -> None:
    google = Google(dataset=[linked("projects/123/datasets/other")])
    result = settle(google, suggested_dataset_id="acme", friendly_name="Acme")
    assert result.linked_dataset == DIGEST.removeprefix("octogen_")
    assert google.requests[1].destination_dataset.friendly_name == "Acme"


@pytest.mark.parametrize(
    ("google", "message", "is_transient", "looks"),
    [
        (Google(dataset=[ORDINARY]), f"{TAKEN}, which is no linked dataset: {CHOOSE}", False, 1),
        (
            Google(dataset=[linked("projects/123/datasets/other")]),
            f"{TAKEN}, which is linked to projects/123/datasets/other: {CHOOSE}",
            False,
            1,
        ),
        (
            Google(dataset=[linked()], listed=[[subscription(SIBLING)]]),
            f"{TAKEN}, which is linked to {SIBLING}: {CHOOSE}",
            False,
            1,
        ),
        (
            Google(dataset=[linked()], shared="projects/octo/datasets/acme_v1"),
            f"{TAKEN}, which is linked to {SHARED}, and no subscription to this listing has it. "
            "Analytics Hub's list may lag behind, or the dataset outlives a subscription that was "
            f"deleted: try again later, delete the dataset if it stays, or {CHOOSE}",
            True,
            3,
        ),
        (
            Google(dataset=[linked(state="UNLINKED")]),
            f"{TAKEN}, whose link has ended: delete it if nobody needs it, or {CHOOSE}",
            False,
            3,
        ),
        (
            Google(dataset=[DENIED]),
            f"{TAKEN}, and no subscription to this listing has it. What the dataset is linked to "
            f"cannot be read (Dataset {PROJECT}.{DEFAULT}: BigQuery refused (403 accessDenied: "
            "Access Denied). To read datasets, these Google credentials need "
            "bigquery.datasets.get, which roles/bigquery.user on the project has): allow that, or "
            f"{CHOOSE}",
            False,
            3,
        ),
        (
            Google(refusals=100),
            f"Listing {LISTING}: Analytics Hub says that dataset {PROJECT}.{DEFAULT} exists, and "
            "BigQuery has none: it is being created or deleted. Try again later.",
            True,
            3,
        ),
    ],
    ids=["ordinary", "source", "listing", "unsure", "unlinked", "denied", "nobody"],
)
def test_a_dataset_that_is_not_this_listing_s_is_an_error(
    google: Google, message: str, is_transient: bool, looks: int, settle: Settle
) -> None:
    with pytest.raises(OctogenBigQueryError) as caught:
        settle(google, destination_dataset_id=DEFAULT)
    assert str(caught.value) == message
    assert isinstance(caught.value, OctogenBigQueryUnavailableError) == is_transient
    assert sum(call.startswith("dataset") for call in google.calls) == looks


def test_a_leftover_that_stays_after_its_deletion_is_an_error(settle: Settle) -> None:
    google = Google(listed=[[revoked()]], dataset=[linked()], refusals=100)
    with pytest.raises(OctogenBigQueryUnavailableError) as caught:
        settle(google, replace=True)
    assert str(caught.value) == (
        f"Listing {LISTING}: dataset {PROJECT}.{DEFAULT} is still there, although the revoked "
        "subscription that it belonged to was deleted. Try again later."
    )
    assert google.calls.count("delete old") == 1


def test_the_waits_grow_and_end_after_some_seconds() -> None:
    assert len(WAITS) > 2
    assert list(WAITS) == sorted(WAITS)
    assert sum(WAITS) < 30
