"""Every fault of the sandbox, as a client sees it, and as it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox_calls import connect, iter_pages, search, uuids


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 120, "strada": 30}, generation="seed") as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox) as connected:
        yield connected


def test_a_page_is_counted_within_its_search(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", 503, page=2))
    with connect(sandbox) as client:
        first = search(client, limit=10)
        body = {"limit": 10, "cursor": first.json()["nextCursor"]}
        assert [search(client, **body).status_code for _ in range(2)] == [503, 503]
        assert search(client, limit=10).status_code == 200
    assert [request.page for request in sandbox.requests] == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (401, "Invalid API key"),
        (402, {"code": "insufficient_credit", "top_up_url": "https://octogen.example/top-up"}),
        (403, "api_key_forbidden"),
        (404, "product_not_found"),
        (422, [{"loc": ["body"], "msg": "Input should be valid", "type": "value_error"}]),
        (429, "rate_limit_exceeded"),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
    ],
)
def test_the_body_follows_the_contract(
    sandbox: Sandbox, client: httpx.Client, status: int, detail: Any
) -> None:
    sandbox.inject(Fault("status", status))
    response = search(client)
    assert (response.status_code, response.json()) == (status, {"detail": detail})
    assert response.headers["x-request-id"]
    assert ("retry-after" in response.headers) is (status == 429)
    sandbox.clear_faults()
    assert search(client).status_code == 200


def test_cut_closes_the_connection_in_the_middle_of_the_body(
    sandbox: Sandbox, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.inject(Fault("cut", times=1))
    received: list[bytes] = []
    with client.stream("POST", "/products/search", json={}) as response:
        whole = int(response.headers["content-length"])
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(response.iter_raw())
    assert 0 < sum(map(len, received)) < whole
    assert len(search(client).json()["items"]) == 50
    assert caplog.records == []


def test_loop_sends_the_cursor_that_was_used(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("loop_cursor", page=2, times=1))
    with connect(sandbox) as client:
        cursor = search(client, limit=10).json()["nextCursor"]
        looping = search(client, limit=10, cursor=cursor).json()
        assert looping["nextCursor"] == cursor
        again = search(client, limit=10, cursor=cursor).json()
    assert again["items"] == looping["items"]
    assert again["nextCursor"] != cursor


def test_restart_serves_page_one_for_a_later_cursor(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("restart_cursor", page=3, times=1))
    with connect(sandbox) as client:
        pages = [uuids(page) for page in iter_pages(client, catalog="strada", limit=10)]
    first, second, third = pages[2:]
    assert pages[:2] == [first, second]
    assert len({*first, *second, *third}) == 30


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("latency=0.25", Fault("latency", 0.25)),
        (
            "status=503,times=3,path=/products/search,page=2,retry_after=7",
            Fault("status", 503, times=3, path="/products/search", page=2, retry_after=7),
        ),
        (
            "times=1,status=429,retry_after=Wed, 21 Oct 2026 07:28:00 GMT",
            Fault("status", 429, times=1, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),
        ),
        ("redirect=http://x.example/a,b?c=d", Fault("redirect", "http://x.example/a,b?c=d")),
    ],
)
def test_a_fault_is_parsed(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unknown word ''"),
        ("cut,often=3", "unknown word 'often'"),
        ("cut,html", "name exactly one of"),
        ("status=200", "status needs a number from 400 to 599"),
        ("price=-1", "price needs a number"),
        ("redirect=elsewhere", "redirect needs an http or https URL"),
        ("cut=1", "cut takes no value"),
        ("cut,times=often", "times needs a whole number"),
        ("cut,times=0", "times must be 1 or more"),
        ("cut,page=0", "page must be 1 or more"),
        ("cut,path=products", "path must begin with /"),
        ("cut,path=/me,page=1", "page selects searches: leave out the path '/me'"),
        ("cut,retry_after=1", "retry_after goes with status"),
        ("cut,detail=gone", "detail goes with status, not with cut"),
    ],
)
def test_invalid_text_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Fault.parse(text)
    assert repr(text) in str(caught.value)
