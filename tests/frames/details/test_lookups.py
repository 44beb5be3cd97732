"""Lookups of many products at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from octogen_dagster.api.cancellation import ClosedError
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenSnapshotError,
)
from octogen_dagster.frames.details.failure_limit import FailureLimit
from octogen_dagster.frames.details.lookups import LookupReader, Lookups
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import QUICK, Server
from tests.api.servers import RawServer, http, in_turn
from tests.frames.details.made_up import found

LOOKUP = "/products/lookup"
UNKNOWN = "https://shop.example/unknown"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 30, "strada": 30}, generation="current") as running:
        yield running


def connection_to(server: Server) -> Connection:
    return Connection(
        api_key=ApiKey(server.api_key),
        base_url=server.base_url,
        retry=RetryPolicy(attempts=1),
        concurrency=3,
    )


def reader(sandbox: Sandbox, share: float = 1.0) -> LookupReader:
    return LookupReader(connection_to(sandbox), FailureLimit(share, 10, 300))


def urls_of(sandbox: Sandbox, count: int) -> list[str]:
    async def first_page(client: OctogenClient) -> list[str]:
        page = await client.search_products(catalog="strada", limit=count)
        return [item.product_url for item in page.items]

    return connection_to(sandbox).call(first_page)


def wait(running: LookupReader, lookups: Lookups) -> None:
    while not running.wait(lookups):
        pass


def test_lookups_are_over_when_each_has_a_result() -> None:
    lookups = Lookups(["a", "b"])
    assert not lookups.are_over
    lookups.results["a"] = found("a")
    assert not lookups.are_over
    lookups.results["b"] = found("b")
    assert lookups.are_over
    assert Lookups([]).are_over


def test_each_address_gets_its_own_product(sandbox: Sandbox) -> None:
    urls = urls_of(sandbox, 7)
    before = datetime.now(timezone.utc)
    with reader(sandbox) as running:
        first, second = running.begin(urls[:4]), running.begin(urls[4:])
        wait(running, second)
        wait(running, first)
    results = first.results | second.results
    assert results.keys() == set(urls)
    for url, lookup in results.items():
        assert lookup.status == "found"
        assert lookup.response
        assert json.loads(lookup.response.content)["product"]["productUrl"] == url
        assert before <= lookup.at <= datetime.now(timezone.utc)
    assert running.sent.requests == 7


def test_a_product_that_no_catalog_has_is_gone_and_no_failure(sandbox: Sandbox) -> None:
    with reader(sandbox, share=0) as running:
        lookups = running.begin([UNKNOWN])
        wait(running, lookups)
    lookup = lookups.results[UNKNOWN]
    assert (lookup.status, lookup.response, lookup.error) == ("gone", None, None)


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("indexed", "found"),
        (None, "found"),
        ("on_demand", "gone"),
        ("client_html", "gone"),
        ("added_later", "gone"),
    ],
)
def test_a_product_that_is_not_from_the_index_is_gone(source: str | None, status: str) -> None:
    product = {"uuid": None if status == "gone" else "u-1", "productUrl": UNKNOWN, "title": "T"}
    answer = {"catalogKey": None, "source": source, "product": product}
    with (
        RawServer(lambda _: http(200, answer)) as server,
        LookupReader(connection_to(server), FailureLimit(0, 1, 300)) as running,
    ):
        lookups = running.begin([UNKNOWN])
        wait(running, lookups)
    lookup = lookups.results[UNKNOWN]
    assert (lookup.status, lookup.error) == (status, None)
    assert lookup.response is not None
    assert lookup.response.source == source


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", 500, path=LOOKUP), "failed: 500 Internal Server Error"),
        (Fault("html", path=LOOKUP), "was answered with 200 and"),
    ],
)
def test_a_lookup_that_fails_says_why(sandbox: Sandbox, fault: Fault, error: str) -> None:
    sandbox.inject(fault)
    with reader(sandbox) as running:
        lookups = running.begin([UNKNOWN])
        wait(running, lookups)
    lookup = lookups.results[UNKNOWN]
    assert (lookup.status, lookup.response) == ("failed", None)
    assert error in (lookup.error or "")


@pytest.mark.parametrize(("failures", "status"), [(1, "found"), (2, "failed")])
def test_a_lookup_whose_shop_fails_is_sent_once_more(failures: int, status: str) -> None:
    shop = http(504, {"detail": "product_lookup_timed_out"})
    answer = {"source": "indexed", "product": {"uuid": "u-1", "productUrl": UNKNOWN}}
    with RawServer(in_turn(*[shop] * failures, http(200, answer))) as server:
        patient = replace(connection_to(server), retry=QUICK)
        with LookupReader(patient, FailureLimit(1, 1, 300)) as running:
            lookups = running.begin([UNKNOWN])
            wait(running, lookups)
    lookup = lookups.results[UNKNOWN]
    assert lookup.status == status
    assert len(server.received) == 2
    if status == "failed":
        assert lookup.error == (
            f"The product at {UNKNOWN} failed: 504 product_lookup_timed_out. The product's shop "
            "failed, not the service: try again later."
        )


def test_shops_that_fail_for_longer_than_the_service_may_be_silent_end_nothing() -> None:
    shop = http(503, {"detail": "product_lookup_fallback_unavailable"})
    with (
        RawServer(lambda _: shop) as server,
        LookupReader(connection_to(server), FailureLimit(1, 5, patience_seconds=0)) as running,
    ):
        lookups = running.begin([f"{UNKNOWN}/{number}" for number in range(5)])
        wait(running, lookups)
    assert {lookup.status for lookup in lookups.results.values()} == {"failed"}


def test_an_empty_address_is_a_failure_without_a_request(sandbox: Sandbox) -> None:
    with reader(sandbox) as running:
        lookups = running.begin([""])
        wait(running, lookups)
    assert lookups.results[""].error == "url must not be empty"
    assert sandbox.requests == []


def test_too_many_failures_reach_the_consumer(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", 500, path=LOOKUP))
    with reader(sandbox, share=0) as running:
        lookups = running.begin([UNKNOWN])
        with pytest.raises(OctogenSnapshotError, match=r"More than 0 % of the lookups failed"):
            wait(running, lookups)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, OctogenAuthenticationError),
        (402, OctogenInsufficientCreditError),
        (403, OctogenForbiddenError),
    ],
)
def test_an_error_that_every_lookup_would_have_ends_all(
    sandbox: Sandbox, status: int, error: type[Exception]
) -> None:
    sandbox.inject(Fault("status", status, path=LOOKUP))
    with reader(sandbox) as running:
        lookups = running.begin([UNKNOWN])
        with pytest.raises(error):
            wait(running, lookups)
    assert lookups.results == {}


def test_after_closing_waiting_is_an_error(sandbox: Sandbox) -> None:
    with reader(sandbox) as running:
        running.close()
        with pytest.raises(ClosedError):
            wait(running, running.begin([UNKNOWN]))


def test_fields_that_an_older_service_does_not_know_are_refused_once_for_all_threads() -> None:
    with Sandbox(catalogs={"strada": 30}, generation="seed") as seed:
        urls = urls_of(seed, 30)
        connection = replace(connection_to(seed), concurrency=16)
        with LookupReader(connection, FailureLimit(0, 30, 300)) as lookups:
            begun = lookups.begin(urls)
            while not lookups.wait(begun):
                pass
        statuses = [request.status for request in seed.requests if request.path == LOOKUP]
    assert statuses == [422] + [200] * 30
