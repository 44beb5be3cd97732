"""The operations, without HTTP."""

import json
from typing import Any

import pytest

from octogen_dagster.sandbox.rest.cursors import Cursors
from octogen_dagster.sandbox.rest.grants import CatalogGrants
from octogen_dagster.sandbox.rest.operations import ApiError, Operations
from octogen_dagster.sandbox.rest.request_bodies import Generation
from octogen_dagster.sandbox.rest.understanding import Understanding


def operations(generation: Generation = "seed") -> Operations:
    grants = CatalogGrants({"northpeak": 12, "strada": 3}, 5, seed=1)
    return Operations(generation, grants, Cursors(b"secret"), Understanding())


def search(target: Operations, **body: Any) -> dict[str, Any]:
    return target.search(json.dumps(body).encode(), "request-1")


def test_catalogs_are_listed() -> None:
    listed = operations().list_catalogs()
    assert [entry["catalog"] for entry in listed] == ["northpeak", "strada"]


def test_a_cursor_leads_to_the_next_page_and_says_which_one_it_is() -> None:
    target = operations()
    first = search(target, limit=10)
    body = {"limit": 10, "cursor": first["nextCursor"]}
    second = search(target, **body)
    assert (len(first["items"]), len(second["items"])) == (10, 5)
    assert second["nextCursor"] is None
    start = target.start_of_page(json.dumps(body).encode())
    assert start is not None
    assert start.page == 2


def test_a_restart_returns_page_one_for_a_cursor() -> None:
    target = operations()
    first = search(target, limit=10)
    body = json.dumps({"limit": 10, "cursor": first["nextCursor"]}).encode()
    assert target.search(body, "request-1", restart=True) == first


@pytest.mark.parametrize("body", [b"", b"[]", b'{"limit": 0}', b"{}", b'{"cursor": "x"}'])
def test_a_body_without_a_valid_cursor_has_no_start(body: bytes) -> None:
    assert operations().start_of_page(body) is None


def test_the_current_generation_adds_what_ran() -> None:
    page = search(operations("current"), limit=10, q="tent")
    assert page["requestId"] == "request-1"
    assert page["effectiveQuery"]["text"] == "tent"
    assert "requestId" not in search(operations(), limit=10, q="tent")


@pytest.mark.parametrize("generation", ["seed", "current"])
def test_a_product_is_found_by_its_url(generation: Generation) -> None:
    target = operations(generation)
    item = search(target)["items"][0]
    found = target.lookup(json.dumps({"url": item["productUrl"]}).encode(), "request-2")
    assert found["product"]["uuid"] == item["uuid"]
    assert found.get("requestId") == ("request-2" if generation == "current" else None)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"catalog": "kumo"}, 404, "catalog_not_found"),
        ({"limit": "x"}, 422, None),
    ],
)
def test_a_search_can_fail(body: dict[str, Any], status: int, detail: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        search(operations(), **body)
    assert caught.value.status == status
    if detail is not None:
        assert caught.value.detail == detail


def test_a_lookup_of_an_unknown_url_fails() -> None:
    with pytest.raises(ApiError) as caught:
        operations().lookup(b'{"url": "https://nowhere.example/x"}', "request-1")
    assert (caught.value.status, caught.value.detail) == (404, "product_not_found")
