from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.background import Deadline
from octogen_dagster.bigquery.resources import AnalyticsHubResource
from octogen_dagster.doctor.analytics_hub import check_analytics_hub
from octogen_dagster.doctor.runner import run_checks
from tests.doctor.listings import EXCHANGE, PROJECT, granted_for, listing, subscribed
from tests.servers.analytics_hub import answering, refusing

Method = Callable[[Any], Any]


def diagnosed(
    named: Sequence[str] = (),
    shared: Sequence[str] = (),
    exchange: str | None = None,
    **methods: Method,
) -> list[str]:
    methods = {"ListSubscriptions": subscribed(), "TestIamPermissions": granted_for([])} | methods
    with answering(**methods) as endpoint:
        resource = AnalyticsHubResource(project=PROJECT, endpoint=endpoint)
        check = partial(check_analytics_hub, resource, named, shared, exchange, 30)
        return [str(each) for each in run_checks({"Analytics Hub": check}, 60)]


def test_listings_by_what_can_be_done_with_them() -> None:
    names = [listing(name) for name in ("linked", "granted", "pending", "refused")]
    found = diagnosed(
        [names[3]],
        names,
        ListSubscriptions=subscribed("linked"),
        TestIamPermissions=granted_for([names[1]]),
    )
    assert [line.partition(" Octogen grants")[0] for line in found] == [
        f"ok       Subscriptions: project {PROJECT} has 1 in location US.",
        "ok       Listings: subscribed to 1: my-project.octogen_linked.products_current_v1.",
        f"ok       Listings: free to subscribe to 1: {names[1]}.",
        f"failed   Listings: not granted (analyticshub.listings.subscribe) are 1: {names[3]}.",
        f"warning  Listings: not granted (analyticshub.listings.subscribe) are 1: {names[2]}.",
    ]
    assert "roles/analyticshub.subscriber" in found[-1]


def test_subscriptions_that_cannot_be_read_hide_no_listing() -> None:
    found = diagnosed(
        [listing("granted")],
        ListSubscriptions=refusing("PERMISSION_DENIED"),
        TestIamPermissions=granted_for([listing("granted")]),
    )
    assert found[0].startswith(
        f"failed   Subscriptions: The subscriptions of projects/{PROJECT}/locations/US"
    )
    assert found[1].startswith("ok       Listings: free to subscribe to 1")


def test_a_listing_that_cannot_be_asked_about_hides_no_other() -> None:
    def test(request: Any) -> Any:
        if request.resource == listing("gone"):
            refusing("NOT_FOUND", "No such listing.")(request)
        return granted_for([listing("granted")])(request)

    found = diagnosed([listing("gone"), listing("granted")], TestIamPermissions=test)
    assert found[1].startswith("failed   Listings: ")
    assert "NOT_FOUND: No such listing" in found[1]
    assert found[2].startswith("ok       Listings: free to subscribe to 1")


def test_without_listings_the_subscriptions_are_read_all_the_same() -> None:
    assert diagnosed() == [
        f"ok       Subscriptions: project {PROJECT} has 0 in location US.",
        "skipped  Listings: none is named, and Octogen's MCP names none.",
    ]


def test_many_listings_are_named_shortly_and_not_all_looked_at() -> None:
    names = [listing(f"shop_{number:03}") for number in range(103)]
    found = diagnosed(shared=names, TestIamPermissions=granted_for(names))
    assert found[1].endswith(f"to 100: {', '.join(names[:3])} and 97 more.")
    assert found[2] == "skipped  Listings: not looked at: 3 more."


@pytest.mark.parametrize(
    ("method", "found"),
    [
        (
            lambda _: ah.ListListingsResponse(
                listings=[
                    ah.Listing(
                        name=listing("acme"),
                        bigquery_dataset=ah.Listing.BigQueryDatasetSource(dataset="p.d"),
                    )
                ]
            ),
            f"ok       Exchange: catalogs in {EXCHANGE}: 1.",
        ),
        (refusing("PERMISSION_DENIED"), f"failed   Exchange: Exchange {EXCHANGE}: Analytics Hub"),
    ],
)
def test_an_exchange(method: Method, found: str) -> None:
    lines = diagnosed(exchange=EXCHANGE, ListListings=method)
    assert lines[0].startswith(found)
    assert lines[1].startswith("ok       Subscriptions")


def test_a_name_that_is_malformed_hides_no_other() -> None:
    found = diagnosed(
        shared=["projects/a", listing("granted")],
        TestIamPermissions=granted_for([listing("granted")]),
    )
    assert found[0].startswith("failed   Listings: 'projects/a' is not the name of a listing")
    assert found[2].startswith("ok       Listings: free to subscribe to 1")


def test_listings_that_fail_for_one_cause_are_not_all_asked_about() -> None:
    names = [listing(f"shop_{number}") for number in range(8)]
    found = diagnosed(shared=names, TestIamPermissions=refusing("PERMISSION_DENIED"))
    assert [line[:8] for line in found[1:]] == ["failed  "] * 3 + ["skipped "]
    assert found[-1] == "skipped  Listings: not looked at: 5 more."


def test_no_call_is_made_when_the_time_of_all_checks_is_over() -> None:
    calls: list[Any] = []
    with answering(TestIamPermissions=calls.append, ListSubscriptions=calls.append) as endpoint:
        resource = AnalyticsHubResource(project=PROJECT, endpoint=endpoint)
        over = Deadline.after(0)
        check = check_analytics_hub(resource, [listing("a")], [], EXCHANGE, 30, within=over)
        found = [each.status for each in check]
    assert set(found) == {"failed"}
    assert not calls
