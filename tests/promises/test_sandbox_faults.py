"""Every fault of the sandbox, as a client sees it, and as it is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox_calls import connect, iter_pages, look_up, search, uuids


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


def test_faults_take_effect_one_after_the_other_with_latency_added(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    for fault in (
        Fault("latency", 0.01),
        Fault("status", 503, times=1),
        Fault("latency", 0.01, path="/catalogs"),
        Fault("status", 429, times=2, path="/products/search"),
    ):
        sandbox.inject(fault)
    answers = [client.get("/catalogs"), search(client), search(client), search(client)]
    assert [answer.status_code for answer in answers] == [503, 429, 429, 200]
    assert [request.faults for request in sandbox.requests] == [
        ("latency", "status", "latency"),
        *[("latency", "status")] * 2,
        ("latency",),
    ]


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


def test_a_429_looks_like_an_empty_bucket(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.set_rate_limit(6)
    sandbox.inject(Fault("status", 429, times=1))
    before = time.time()
    headers = search(client).headers
    assert headers["retry-after"] == "1"
    assert headers["x-ratelimit-remaining"] == "0"
    assert int(headers["x-ratelimit-reset"]) >= before + 60
    assert search(client).headers["x-ratelimit-remaining"] == "5"


def test_retry_after_can_be_chosen(sandbox: Sandbox, client: httpx.Client) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    sandbox.inject(Fault("status", 503, times=1, retry_after=3))
    sandbox.inject(Fault("status", 429, retry_after=date))
    assert [search(client).headers["retry-after"] for _ in range(2)] == ["3", date]


def test_the_detail_can_be_chosen(sandbox: Sandbox, client: httpx.Client) -> None:
    detail = "product_lookup_upstream_failed"
    sandbox.inject(Fault.parse(f"status=502,path=/products/lookup,detail={detail}"))
    response = look_up(client, "https://nowhere.example/x")
    assert (response.status_code, response.json()) == (502, {"detail": detail})
    assert search(client).status_code == 200


def test_latency_delays_the_response(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.inject(Fault("latency", 3600, times=1))
    with pytest.raises(httpx.ReadTimeout):
        client.get("/catalogs", timeout=0.05)
    sandbox.inject(Fault("latency", 0.01))
    assert client.get("/catalogs").status_code == 200
    assert [request.status for request in sandbox.requests] == [None, 200]
    assert sandbox.requests[1].faults == ("latency",)


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


def test_truncate_is_a_complete_response_of_half_a_document(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.inject(Fault("truncate", times=1))
    response = search(client)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert len(response.content) == int(response.headers["content-length"])
    assert search(client).content.startswith(response.content)
    with pytest.raises(ValueError, match="char"):
        response.json()


def test_html_is_a_web_page(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.inject(Fault("html"))
    response = search(client)
    assert (response.status_code, response.text[:15]) == (200, "<!doctype html>")
    assert response.headers["content-type"].startswith("text/html")


def test_redirect_leads_elsewhere(sandbox: Sandbox, client: httpx.Client) -> None:
    with Sandbox(catalogs=1, generation="seed") as elsewhere:
        sandbox.inject(Fault("redirect", f"{elsewhere.base_url}/catalogs"))
        response = client.get("/catalogs", follow_redirects=True)
        assert response.history[0].status_code == 307
        assert str(response.url) == f"{elsewhere.base_url}/catalogs"
        (request,) = elsewhere.requests
    assert not request.has_key


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


@pytest.mark.parametrize("kind", ["loop_cursor", "restart_cursor"])
def test_cursor_faults_hit_only_requests_with_a_cursor(
    sandbox: Sandbox, client: httpx.Client, kind: Any
) -> None:
    sandbox.inject(Fault(kind))
    search(client)
    client.get("/catalogs")
    assert [request.faults for request in sandbox.requests] == [(), ()]


def test_unknown_fields_are_everywhere(sandbox: Sandbox, client: httpx.Client) -> None:
    plain = search(client).json()
    plain_catalogs = client.get("/catalogs").json()
    sandbox.inject(Fault("unknown_fields"))
    page = search(client).json()
    assert page.keys() - plain.keys() == {"addedWithoutNotice"}
    for item, plain_item in zip(page["items"], plain["items"], strict=True):
        assert item.keys() - plain_item.keys() == {"addedWithoutNotice"}
        assert "addedWithoutNotice" in (item.get("brand") or ["addedWithoutNotice"])
    for catalog, plain_catalog in zip(client.get("/catalogs").json(), plain_catalogs, strict=True):
        assert catalog.keys() - plain_catalog.keys() == {"addedWithoutNotice"}


@pytest.mark.parametrize(
    ("fault", "price"),
    [(Fault("wrong_type"), "not a number"), (Fault.parse("price=9.75"), 9.75)],
)
def test_one_product_has_another_price(
    sandbox: Sandbox, client: httpx.Client, fault: Fault, price: object
) -> None:
    plain = search(client).json()["items"]
    sandbox.inject(fault)
    items = search(client).json()["items"]
    differing = [(a, b) for a, b in zip(items, plain, strict=True) if a != b]
    ((wrong, right),) = differing
    assert wrong == {**right, "currentPrice": price}
    assert search(client, q="zebra").json() == {"items": [], "nextCursor": None}


def test_a_sandbox_can_add_unknown_fields_to_every_response() -> None:
    with (
        Sandbox(catalogs={"strada": 5}, unknown_fields=True) as sandbox,
        connect(sandbox) as client,
    ):
        sandbox.inject(Fault("price", 9.75, path="/products/search"))
        page = search(client).json()
        found = look_up(client, page["items"][0]["productUrl"]).json()
        me = client.get("/me").json()
    for thing in (page, *page["items"], found, found["product"], me):
        assert "addedWithoutNotice" in thing
    assert 9.75 in {item.get("currentPrice") for item in page["items"]}


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
