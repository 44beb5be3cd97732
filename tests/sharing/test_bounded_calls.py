"""Lists whose pages never end, and calls whose time is over."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.background import Deadline
from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
    Persistence,
)
from octogen_dagster.sharing import bounded_calls
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from tests.sharing.hubs import Refusal, answering

EXCHANGE = "projects/octogen/locations/us/dataExchanges/catalogs"
LISTS: dict[str, Callable[[AnalyticsHub], Iterator[object]]] = {
    f"Exchange {EXCHANGE}": lambda hub: hub.listings(EXCHANGE),
    "The subscriptions of projects/mine/locations/us": lambda hub: hub.subscriptions("mine", "us"),
}


class EndlessPages:
    """Answers with another page at each call, and counts the calls."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.calls = 0

    def listings(self, _: Any) -> ah.ListListingsResponse:
        listing = ah.Listing(name=f"{EXCHANGE}/listings/a")
        return ah.ListListingsResponse(listings=[listing], next_page_token=self._next())

    def subscriptions(self, _: Any) -> ah.ListSubscriptionsResponse:
        subscription = ah.Subscription(name="projects/mine/locations/us/subscriptions/s")
        return ah.ListSubscriptionsResponse(
            subscriptions=[subscription], next_page_token=self._next()
        )

    def _next(self) -> str:
        self.calls = next(self._numbers)
        return str(self.calls)

    @contextlib.contextmanager
    def hub(self, **settings: Any) -> Iterator[AnalyticsHub]:
        with (
            answering(ListListings=self.listings, ListSubscriptions=self.subscriptions) as endpoint,
            AnalyticsHub(endpoint=endpoint, **settings) as hub,
        ):
            yield hub


@pytest.mark.parametrize("subject", LISTS)
def test_a_list_has_a_limit_of_pages(subject: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_calls, "MAX_PAGES", 5)
    pages = EndlessPages()
    with pages.hub() as hub, pytest.raises(OctogenBigQueryError) as caught:
        list(LISTS[subject](hub))
    assert str(caught.value) == (
        f"{subject}: 5 pages were read and there are more, so they cannot be read completely. "
        "Report it to Octogen."
    )
    assert caught.value.persistence is Persistence.PERMANENT
    assert pages.calls == 5


@pytest.mark.parametrize("subject", LISTS)
def test_all_pages_of_a_list_have_one_deadline(subject: str) -> None:
    pages = EndlessPages()
    with pages.hub(deadline=2) as hub:
        listed = LISTS[subject](hub)
        next(listed)
        time.sleep(2.1)
        with pytest.raises(OctogenBigQueryUnavailableError) as caught:
            next(listed)
    assert str(caught.value) == (
        f"{subject}: 1 pages were read within 2 s, and there are more. Try again later."
    )
    assert caught.value.persistence is Persistence.UNCLEAR
    assert pages.calls == 1


def test_a_list_ends_with_its_time_and_sends_no_more_calls() -> None:
    within = Deadline.after(60)
    pages = EndlessPages()
    with pages.hub(within=within) as hub:
        listed = hub.listings(EXCHANGE)
        next(listed)
        within.stop.set()
        with pytest.raises(OctogenBigQueryUnavailableError, match="1 pages were read within"):
            list(listed)
        with pytest.raises(OctogenBigQueryUnavailableError, match="no time was left to send it"):
            hub.listing(f"{EXCHANGE}/listings/a")
        with pytest.raises(OctogenBigQueryUnavailableError, match="no time was left to send it"):
            list(hub.subscriptions("mine", "us"))
    assert pages.calls == 1


def test_an_attempt_that_has_no_time_left_does_not_hide_why_the_others_failed() -> None:
    attempts = itertools.count()

    def unavailable_then_late(_: Any) -> Any:
        code = "UNAVAILABLE" if next(attempts) < 1 else "DEADLINE_EXCEEDED"
        raise Refusal(code, "Why.")

    with (
        answering(GetListing=unavailable_then_late) as endpoint,
        AnalyticsHub(endpoint=endpoint, deadline=0.1, first_wait=0.001) as hub,
        pytest.raises(OctogenBigQueryUnavailableError, match=r"in time \(UNAVAILABLE: Why\)"),
    ):
        hub.listing(f"{EXCHANGE}/listings/a")
    assert next(attempts) > 2
