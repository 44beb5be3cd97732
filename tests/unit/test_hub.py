"""Calls of Analytics Hub end: what hangs, circles or fails does not hold a tick or a run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah
from google.oauth2.credentials import Credentials

from octogen_dagster.errors import OctogenBigQueryError
from octogen_dagster.sharing import google_errors, hub
from octogen_dagster.sharing.hub import AnalyticsHub
from tests.api.servers import RawServer, hanging, http
from tests.servers.analytics_hub import answering
from tests.servers.google import EXCHANGE, LISTING, Google

SECRET = "google-secret-0123456789"

Fails = Callable[[str, AnalyticsHub], None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "FIRST_WAIT", 0.001)
    monkeypatch.delenv("ANALYTICS_HUB_EMULATOR_HOST", raising=False)


@pytest.fixture
def fails() -> Fails:
    """Reads an exchange that cannot be read."""

    def fails(message: str, opened: AnalyticsHub) -> None:
        with opened, pytest.raises(OctogenBigQueryError, match=message) as caught:
            opened.list_listings(EXCHANGE)
        assert SECRET not in str(caught.value)

    return fails


def pages(tokens: Iterator[str]) -> Callable[[Any], ah.ListListingsResponse]:
    listing = ah.Listing(name=LISTING)
    return lambda _: ah.ListListingsResponse(listings=[listing], next_page_token=next(tokens))


def test_a_call_ends_at_its_deadline(fails: Fails) -> None:
    caught = threading.Event()
    with answering(ListListings=lambda _: caught.wait(60)) as endpoint:
        opened = AnalyticsHub(endpoint=endpoint, deadline=0.3)
        fails(r"in time \(DEADLINE_EXCEEDED: .*Try again", opened)
        caught.set()


def test_one_answer_that_does_not_come_is_not_the_last() -> None:
    first, second = itertools.count(), threading.Event()

    def slow_once(request: Any) -> Any:
        if next(first):
            second.set()
        else:
            second.wait(60)
        return pages(iter([""]))(request)

    with (
        answering(ListListings=slow_once) as endpoint,
        AnalyticsHub(endpoint=endpoint, timeout=0.3) as opened,
    ):
        assert len(opened.list_listings(EXCHANGE).listings) == 1


def test_a_server_that_is_never_there_is_an_error(fails: Fails) -> None:
    message = r"did not respond in time \(UNAVAILABLE"
    fails(message, AnalyticsHub(endpoint="127.0.0.1:1", deadline=0.5))
    google = Google()
    google.refuse("ListListings", "UNAVAILABLE", 10_000)
    with google.running() as endpoint:
        fails(message, AnalyticsHub(endpoint=endpoint, deadline=0.5))
    assert google.calls.count("ListListings") > 2


@pytest.mark.slow
def test_pages_without_an_end_are_an_error(fails: Fails) -> None:
    numbers = (str(number) for number in itertools.count())
    with answering(ListListings=pages(numbers)) as endpoint:
        opened = AnalyticsHub(endpoint=endpoint, deadline=0.5)
        fails(r"pages were read within 0\.\d+ s", opened)
    circle = itertools.cycle("ab")
    with answering(ListListings=pages(circle)) as endpoint:
        fails("the same page token twice", AnalyticsHub(endpoint=endpoint))


def test_a_local_server_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    with Google().running() as endpoint:
        for address in (endpoint, f"http://{endpoint}"):
            monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", address)
            with AnalyticsHub() as opened:
                assert len(opened.list_listings(EXCHANGE).listings) == 1


# Credentials.


def credentials(origin: str) -> Credentials:
    """Credentials that must fetch a token from a server before they can be used."""
    return Credentials(  # type: ignore[no-untyped-call]
        None,
        refresh_token=SECRET,
        token_uri=f"{origin}/token",
        client_id="client",
        client_secret=SECRET,
    )


def test_credentials_that_are_missing_refused_or_unreachable_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    fails(r"no Google credentials .*`gcloud auth application-default login`", AnalyticsHub())
    refusal = {"error": "invalid_grant", "error_description": "Token has been revoked."}
    with RawServer(lambda _: http(400, refusal)) as server:
        message = "the Google credentials cannot be used .*Token has been revoked"
        fails(message, AnalyticsHub(credentials(server.origin)))
    unreachable = "Google's token endpoint did not respond"
    fails(unreachable, AnalyticsHub(credentials("http://127.0.0.1:1")))
    monkeypatch.setattr(google_errors, "TOKEN_TIMEOUT", 0.1)
    with RawServer(lambda _: hanging(lambda: server)) as server:
        fails(unreachable, AnalyticsHub(credentials(server.origin)))
