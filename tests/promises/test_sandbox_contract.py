"""The sandbox keeps the contract over the socket, statement by statement, in both generations."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.promises.sandbox_calls import all_items, connect, iter_pages, look_up, search, uuids

SHOPS = {"northpeak": 120, "strada": 30}


@pytest.fixture
def seed() -> Iterator[Sandbox]:
    with Sandbox(catalogs=SHOPS, generation="seed") as running:
        yield running


@pytest.fixture
def older(seed: Sandbox) -> Iterator[httpx.Client]:
    with connect(seed) as connected:
        yield connected


@pytest.fixture
def newer() -> Iterator[httpx.Client]:
    with Sandbox(catalogs=SHOPS) as current, connect(current) as connected:
        yield connected


@pytest.mark.parametrize("authorization", [None, "", "Basic abc", "Bearer"])
def test_a_missing_or_malformed_key_is_a_401(seed: Sandbox, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = httpx.get(f"{seed.base_url}/catalogs", headers=headers)
    assert response.status_code == 401
    assert response.json() == {"detail": "Authorization Bearer token required"}


def test_another_key_is_a_401_even_for_a_body_that_would_be_refused(seed: Sandbox) -> None:
    seed.set_rate_limit(1)
    with connect(seed, api_key=seed.api_key + "x") as client:
        response = search(client, limit=0)
    assert (response.status_code, response.json()) == (401, {"detail": "Invalid API key"})
    assert response.headers["x-ratelimit-remaining"] == "1", "it costs nothing"


def test_each_generation_has_routes_of_its_own(older: httpx.Client, newer: httpx.Client) -> None:
    for path in ("/me", "/domains/strada.example"):
        assert (older.get(path).status_code, newer.get(path).status_code) == (404, 200)
    assert (older.get("/catalogs").status_code, newer.get("/catalogs").status_code) == (200, 404)
    assert older.post("/products/facet-counts", json={}).status_code == 404
    assert older.get("/nowhere").json() == {"detail": "Not Found"}
    wrong_method = older.get("/products/search")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"limit": NaN}', b""])
def test_a_body_that_is_not_an_object_is_a_422(older: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = older.post("/products/search", content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][0] == "body"


def test_a_field_of_the_other_generation_is_refused_by_its_name(
    older: httpx.Client, newer: httpx.Client
) -> None:
    for response, name in (
        (search(older, catalogs=["strada"]), "catalogs"),
        (search(older, understand=False, q="a"), "understand"),
        (search(newer, catalog="strada"), "catalog"),
    ):
        (problem,) = response.json()["detail"]
        assert (response.status_code, problem["loc"]) == (422, ["body", name])
        assert problem["type"] == "extra_forbidden"


def test_catalogs_are_listed_with_their_facts(older: httpx.Client) -> None:
    northpeak, strada = older.get("/catalogs").json()
    assert northpeak == {
        "catalog": "northpeak",
        "displayName": "Northpeak Outfitters",
        "sourceBaseUrl": "https://www.northpeak.example",
        "productCount": 120,
        "lastIndexedAt": "2026-01-15T06:00:00Z",
    }
    assert strada["productCount"] == 30


def test_a_host_has_all_its_catalogs() -> None:
    catalogs = {"northpeak": 30, "strada": 10, "northpeak.outlet": 0}
    with Sandbox(catalogs=catalogs) as sandbox, connect(sandbox) as client:
        covered = client.get("/domains/www.Northpeak.example").json()
        other = client.get("/domains/nowhere.example")
    counts = [(entry["catalog"], entry["productCount"]) for entry in covered["catalogs"]]
    assert covered["host"] == "northpeak.example"
    assert counts == [("northpeak", 30), ("northpeak.outlet", 0)]
    assert (other.status_code, other.json()) == (404, {"detail": "domain_not_covered"})


def test_a_host_says_how_many_products_each_brand_has(newer: httpx.Client) -> None:
    (catalog,) = newer.get("/domains/northpeak.example").json()["catalogs"]
    (brands,) = [field for field in catalog["fields"] if field["name"] == "brand_name"]
    counts = {each["label"]: each["count"] for each in brands["topValues"]}
    assert sum(counts.values()) == brands["populated"] <= 120
    for label, count in counts.items():
        facets = [{"name": "brand_name", "values": [label]}]
        assert len(all_items(newer, catalogs=["northpeak"], facets=facets)) == count


def test_a_search_can_be_restricted_to_catalogs(older: httpx.Client, newer: httpx.Client) -> None:
    assert len(search(older, catalog="strada").json()["items"]) == 30
    assert uuids(all_items(newer, catalogs=["strada", "northpeak"])) == uuids(all_items(older))
    unknown = search(older, catalog="voltaic")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "catalog_not_found"})
    # A key that does not exist matches nothing in the other generation.
    assert search(newer, catalogs=["voltaic"]).json()["items"] == []
    assert len(search(newer, catalogs=["voltaic", "strada"]).json()["items"]) == 30


def test_an_item_of_the_seed_generation(older: httpx.Client) -> None:
    items = search(older, catalog="northpeak", limit=100).json()["items"]
    assert set().union(*items) == {
        *("uuid", "productUrl", "title", "brand", "currentPrice", "originalPrice"),
        *("imageUrl", "images", "rating", "updatedAt", "isActive"),
    }
    assert all(str(uuid.UUID(item["uuid"])) == item["uuid"] for item in items)
    images = [url for item in items for url in item.get("images", ())]
    assert {type(url) for url in images} == {str}
    updated = [text for item in items if (text := item.get("updatedAt"))]
    assert all(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") for text in updated)


def test_a_page_of_the_current_generation_says_what_ran(newer: httpx.Client) -> None:
    facets = [{"name": "gender", "values": ["male"]}]
    body = {"q": " boots ", "catalogs": ["strada", "strada"], "price_max": 500}
    response = search(newer, **body, facets=facets, understand=False)
    page = response.json()
    assert page["requestId"] == response.headers["x-request-id"]
    assert page["effectiveQuery"] == {
        "text": "boots",
        "understood": False,
        "catalogs": ["strada"],
        "facets": [{**facets[0], "source": "caller"}],
        "excludeFacets": [],
        "priceMin": None,
        "priceMax": 500.0,
        "brandQualityMin": None,
        "brandQualityMax": None,
        "similarToBrands": None,
        "relaxation": None,
    }
    scores = {item.get("displayMatchScore") for item in page["items"]} - {None}
    assert scores
    assert all(type(score) is int and 60 < score <= 100 for score in scores)


def test_the_last_cursor_is_null_in_one_generation_and_may_be_absent_in_the_other(
    older: httpx.Client, newer: httpx.Client
) -> None:
    assert search(older, catalog="strada").json().keys() == {"items", "nextCursor"}
    assert search(older, catalog="strada").json()["nextCursor"] is None
    pages = [search(newer, catalogs=["strada"], limit=limit).json() for limit in range(60, 80)]
    assert {page.get("nextCursor") for page in pages} == {None}
    assert {"nextCursor" in page for page in pages} == {True, False}


def test_without_keywords_every_product_is_shown_once(older: httpx.Client) -> None:
    shown = [item for page in iter_pages(older, limit=40) for item in page]
    assert len(shown) == len(set(uuids(shown))) == 150
    assert len(search(older).json()["items"]) == 50


def test_with_keywords_later_pages_repeat_the_products_of_page_one(older: httpx.Client) -> None:
    first, *later = iter_pages(older, q="outdoor", limit=20)
    repeated = [each for page in later for each in uuids(page)]
    assert len(repeated) == len(set(repeated)) > 20
    assert set(uuids(first)) < set(repeated)


@pytest.mark.parametrize("cursor", ["", "nonsense", "💥", "AAAA", "=" * 50])
def test_a_malformed_cursor_starts_again(older: httpx.Client, cursor: str) -> None:
    assert search(older, limit=9, cursor=cursor).json() == search(older, limit=9).json()


@pytest.mark.parametrize(
    "changed", [{"limit": 11}, {"q": "shoes"}, {"catalog": "northpeak"}, {"price_min": 1}]
)
def test_a_cursor_with_other_parameters_starts_again(
    older: httpx.Client, changed: dict[str, Any]
) -> None:
    cursor = search(older, limit=10).json()["nextCursor"]
    body = {"limit": 10, **changed}
    assert search(older, **body, cursor=cursor).json() == search(older, **body).json()


def test_a_cursor_outlives_a_restart_of_the_same_sandbox(older: httpx.Client) -> None:
    first = search(older, limit=10).json()
    body = {"limit": 10, "cursor": first["nextCursor"]}
    second = search(older, **body).json()
    assert second == search(older, **body).json() != first
    with Sandbox(catalogs=SHOPS, generation="seed") as again, connect(again) as other:
        assert search(other, **body).json() == second
    with Sandbox(catalogs=SHOPS, seed=2, generation="seed") as stale, connect(stale) as other:
        assert search(other, **body).json() == search(other, limit=10).json()


@pytest.mark.parametrize("generation", ["seed", "current"])
def test_a_product_is_found_by_its_url_and_is_that_of_the_page(generation: Any) -> None:
    envelope = {"catalogKey", "catalogDisplayName", "sourceBaseUrl", "product"}
    with Sandbox(catalogs=SHOPS, generation=generation) as sandbox, connect(sandbox) as client:
        for item in search(client, limit=100).json()["items"]:
            found = look_up(client, item["productUrl"]).json()
            assert found.keys() >= envelope
            assert generation == "current" or found.keys() == envelope
            shared = item.keys() & found["product"].keys() - {"colors", "sizes"}
            assert shared >= {"uuid", "productUrl"}
            assert all(found["product"][name] == item[name] for name in shared)
        unknown = look_up(client, "https://www.strada.example/products/x-1")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "product_not_found"})


def test_only_a_loose_match_ignores_case_and_parameters(newer: httpx.Client) -> None:
    url = search(newer).json()["items"][0]["productUrl"]
    changed = url.replace("/products/", "/Products/") + "?campaign=1"
    assert look_up(newer, url, matchMode="strict").json()["source"] == "indexed"
    strict = {"matchMode": "strict", "resolutionMode": "index_only"}
    assert look_up(newer, changed, **strict).status_code == 404
    found = look_up(newer, changed, resolutionMode="index_only").json()
    assert (found["product"]["productUrl"], found["requestedUrl"]) == (url, changed)


def test_answers_are_charged_until_the_credit_is_spent() -> None:
    broke = Sandbox(catalogs={"strada": 5}, credit_usd=0.03, generation="seed")
    with broke, connect(broke) as client:
        url = search(client).json()["items"][0]["productUrl"]
        answers = [
            search(client, limit=0),
            search(client),
            look_up(client, url),
            look_up(client, url),
            search(client),
            client.get("/catalogs"),
        ]
    assert [answer.status_code for answer in answers] == [422, 200, 200, 402, 402, 200]
    detail = answers[4].json()["detail"]
    assert (detail["code"], detail["balance_usd"]) == ("insufficient_credit", 0.0)
    assert (broke.charged_usd, broke.balance_usd) == (0.03, 0.0)


def test_an_empty_bucket_is_a_429_for_every_operation(seed: Sandbox, older: httpx.Client) -> None:
    seed.set_rate_limit(3)
    before = time.time()
    responses = [*(older.get("/catalogs") for _ in range(3)), older.get("/catalogs"), search(older)]
    assert [response.status_code for response in responses] == [200] * 3 + [429] * 2
    headers = [response.headers for response in responses]
    assert [each["x-ratelimit-limit"] for each in headers] == ["3"] * 5
    assert [each["x-ratelimit-remaining"] for each in headers] == ["2", "1", "0", "0", "0"]
    resets = [int(each["x-ratelimit-reset"]) for each in headers]
    assert before < resets[0] < resets[2]
    assert responses[4].json() == {"detail": "rate_limit_exceeded"}
    assert 1 <= int(headers[4]["retry-after"]) <= 20


def test_every_response_has_the_headers(older: httpx.Client) -> None:
    responses = [
        older.get("/catalogs"),
        older.get("/nowhere"),
        search(older, limit=0),
        search(older, catalog="nowhere"),
        older.get("/catalogs", headers={"Authorization": "Bearer wrong"}),
    ]
    assert [each.status_code for each in responses] == [200, 404, 422, 404, 401]
    for response in responses:
        assert response.headers["x-ratelimit-limit"] == "600000"
        assert int(response.headers["x-ratelimit-reset"]) > 0
    assert len({response.headers["x-request-id"] for response in responses}) == 5


def test_the_key_and_its_limit_are_shown_without_the_secret() -> None:
    with Sandbox(catalogs=1, requests_per_minute=10) as sandbox, connect(sandbox) as client:
        me = client.get("/me").json()
    assert (me["principal"], me["organization"]["type"]) == ("api_key", "catalog_partner")
    assert (me["rateLimit"]["limit"], me["rateLimit"]["remaining"]) == (10, 9)
    assert sandbox.api_key not in str(me)
