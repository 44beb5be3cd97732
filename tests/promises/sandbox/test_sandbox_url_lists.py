"""The URL lists of the sandbox: which URLs are one, when a list is there, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox.sandbox_calls import connect

LISTS = "/coverage/url-lists"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 20}, url_list_seconds=0) as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox) as connected:
        yield connected


@pytest.fixture
def list_id(client: httpx.Client) -> str:
    made: str = client.post(LISTS, json={"name": "q3"}).json()["urlListId"]
    return made


@pytest.mark.parametrize(
    ("normalized", "others"),
    [
        (
            "https://shop.example/Dress",
            [
                "http://SHOP.Example/Dress/",
                "HTTPS://shop.example:443/Dress#reviews",
                "http://shop.example:80/Dress?utm_source=mail&UTM_Medium=x&gclid=1&fbclid",
            ],
        ),
        (
            "https://shop.example/dress?size=M&color=a%20b",
            ["https://shop.example/dress/?size=M&utm_id=&color=a%20b"],
        ),
        ("https://shop.example:8443", ["http://shop.example:8443/", "https://shop.example:8443?"]),
    ],
)
def test_spellings_of_a_url_are_one_member(
    client: httpx.Client, list_id: str, normalized: str, others: list[str]
) -> None:
    added = client.post(f"{LISTS}/{list_id}/urls", json={"urls": [*others, normalized]}).json()
    assert [each["normalizedUrl"] for each in added["accepted"]] == [normalized] * (len(others) + 1)
    [member] = client.get(f"{LISTS}/{list_id}/urls").json()["items"]
    assert (member["url"], member["normalizedUrl"]) == (others[0], normalized)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "dress",
        "/products/dress",
        "ftp://shop.example/a",
        "https:///",
        "https://localhost/a",
        "https://me@shop.example/",
        "https://shop..example",
        "https://shop.example/a b",
    ],
)
def test_what_is_no_url_is_rejected_and_the_others_are_not(
    client: httpx.Client, list_id: str, url: str
) -> None:
    for change in ("urls", "urls/remove"):
        body = {"urls": [url, "https://shop.example/a"]}
        changed = client.post(f"{LISTS}/{list_id}/{change}", json=body).json()
        assert [(each["url"], each["code"]) for each in changed["rejected"]] == [
            (url, "invalid_url")
        ]
        assert [each["url"] for each in changed["accepted"]] == ["https://shop.example/a"]


def test_nothing_is_charged_and_a_key_is_needed() -> None:
    with Sandbox(catalogs=1, products=1, credit_usd=0) as sandbox:
        with connect(sandbox) as client:
            assert client.post(LISTS, json={"name": "q3"}).status_code == 201
        with connect(sandbox, api_key="octo_live_other") as stranger:
            assert stranger.get(LISTS).status_code == 401
        assert sandbox.charged_usd == 0


def test_the_older_service_has_no_lists() -> None:
    with Sandbox(catalogs=1, products=1, generation="seed") as sandbox, connect(sandbox) as client:
        assert client.get(LISTS).status_code == 404


def test_an_answer_is_lost_and_the_request_was_not(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.inject(Fault("cut", path=LISTS, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(LISTS, json={"name": "q3"})
    assert client.post(LISTS, json={"name": "q3"}).json() == {"detail": "url_list_name_conflict"}
    asked = [(each.method, each.status, each.body) for each in sandbox.requests]
    assert asked == [("POST", status, {"name": "q3"}) for status in (201, 409)]
    sandbox.inject(Fault("unknown_fields"))
    [found] = client.get(LISTS).json()["items"]
    assert found["addedWithoutNotice"]
