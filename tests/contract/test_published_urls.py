"""What is one page is what the published client says of hosts, and the sandbox of its lists."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from octogen_ai_sdk import normalize_host

from octogen_dagster.frames.urls import normalized_url
from octogen_dagster.sandbox.server import Sandbox
from tests.prices_model import page
from tests.promises.sandbox.sandbox_calls import connect

addresses = st.builds(
    "{}://{}{}{}{}{}".format,
    st.sampled_from(["http", "https", "HTTPS"]),
    st.sampled_from(["shop.example", "SHOP.example", "www.shop.example", "WWW.Shop.example."]),
    st.sampled_from(["", ":80", ":443", ":8443"]),
    st.sampled_from(["", "/", "/p", "/P/", "/%70", "/sch%c3%b6n", "/schön", "/a%2fb", "/a/b"]),
    st.sampled_from(["", "?", "?a=1&b=2", "?b=2&a=1", "?a=1&utm_source=x&GCLID=1", "?a=%31"]),
    st.sampled_from(["", "#top"]),
)


def normalized(*urls: str) -> list[str]:
    return (
        pl.Series(urls).to_frame("url").select(normalized_url(pl.col("url"))).to_series().to_list()
    )


@given(addresses, addresses)
def test_spellings_of_a_page_have_one_form(one: str, other: str) -> None:
    forms = normalized(one, other)
    assert (forms[0] == forms[1]) == (page(one) == page(other))
    assert normalized(*forms) == forms
    host = forms[0].removeprefix("https://").split("/")[0].split("?")[0].removesuffix(":8443")
    assert host == normalize_host(one)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with Sandbox(catalogs=1, products=1, url_list_seconds=0) as sandbox, connect(sandbox) as client:
        yield client


@settings(max_examples=20)
@given(st.lists(addresses, min_size=1, max_size=20))
def test_what_the_sandbox_makes_one_is_one_page(client: httpx.Client, urls: list[str]) -> None:
    lists = client.get("/coverage/url-lists").json()["items"] or [
        client.post("/coverage/url-lists", json={"name": "q3"}).json()
    ]
    body = {"urls": urls}
    path = f"/coverage/url-lists/{lists[0]['urlListId']}/urls"
    for each in client.post(path, json=body).json()["accepted"]:
        assert normalized(each["normalizedUrl"]) == normalized(each["url"])
