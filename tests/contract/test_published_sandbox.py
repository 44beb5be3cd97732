"""The sandbox of the current generation refuses exactly what the published models refuse.

Facets and categories are known ones here: the models do not know which exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.sandbox.server import Sandbox
from tests.published import published
from tests.published_service import refusal_of

often = settings(published, max_examples=100)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with Sandbox(catalogs={"acme": 3}, generation="current") as sandbox:
        headers = {
            "Authorization": f"Bearer {sandbox.api_key}",
            "Content-Type": "application/json",
        }
        with httpx.Client(base_url=sandbox.base_url, headers=headers) as connected:
            yield connected


text = st.sampled_from(["", " ", "\x1c", "acme", "boots", "x" * 201])
facet_name = st.sampled_from(["fit", "gender", "brand_name", "category_path.depth_0"])
facet = st.fixed_dictionaries({"name": facet_name, "values": st.lists(st.just("x"), min_size=1)})
number = st.sampled_from([-1, -0.5, 0, 0.5, 1, 3, 6, 6.5])


def up_to(limit: int, values: st.SearchStrategy[Any] = text) -> st.SearchStrategy[Any]:
    """Null, a few values, or about as many distinct texts as there may be."""
    about = st.sampled_from([limit, limit + 1]).map(lambda size: [f"fit {n}" for n in range(size)])
    return st.none() | st.lists(values, max_size=2) | about


facets = st.none() | st.lists(facet, max_size=3) | st.just([{"name": "fit", "values": ["x"]}] * 51)
FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "q": st.none() | text,
    "facets": facets,
    "exclude_facets": facets,
    "omit_generated_facets": up_to(50, facet_name),
    "fallback_category": st.none()
    | st.sampled_from([[], ["Sporting Goods"], ["apparel & accessories"], ["x"] * 5]),
    "price_min": st.none() | number,
    "price_max": st.none() | number,
    "brand_quality_min": st.none() | number,
    "brand_quality_max": st.none() | number,
    "catalogs": up_to(500),
}
SEARCH = FILTERS | {
    "understand": st.none() | st.booleans(),
    "similar_to_brands": up_to(10),
    "limit": st.integers(-1, 101),
    "cursor": st.none() | text,
    "relax": st.none() | st.booleans(),
    "diversity": st.none() | st.booleans(),
    "debug": st.none() | st.booleans(),
    "catalog": st.just("acme"),
}
category = st.fixed_dictionaries({"key": text, "facets": st.lists(facet, max_size=3)})
FIT = [{"name": "fit", "values": ["x"]}]
COUNTS = FILTERS | {
    "attributes": st.none()
    | st.lists(st.sampled_from(["fit", "material"]), max_size=3)
    | st.just([f"fit {number}" for number in range(51)]),
    "categories": st.none()
    | st.lists(category, max_size=2)
    | st.sampled_from([100, 101]).map(
        lambda size: [{"key": f"{number}", "facets": FIT} for number in range(size)]
    ),
    "facet_names": st.none()
    | st.lists(st.sampled_from(["color_family", "category_path.depth_0", "gender"]), max_size=3),
    "value_limit": st.none() | st.sampled_from([0, 1, 1000, 1001]),
    "understand": st.booleans(),
}
LOOKUP: dict[str, st.SearchStrategy[Any]] = {
    "url": st.sampled_from(["", "https://acme.example/a"]),
    "matchMode": st.sampled_from([None, "loose", "strict", "other"]),
    "resolutionMode": st.sampled_from(["auto", "index_only", "on_demand_only", "other"]),
    "onDemandCachePolicy": st.sampled_from(["prefer_cache", "refresh", "other"]),
}


def some_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies with up to three of the fields."""
    return st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


def check(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    answer = client.post(path, content=content)
    if refused := refusal_of(f"/v1{path}", content):
        assert answer.status_code == 422, refused
    else:
        assert answer.status_code in (200, 404), answer.text


@often
@given(some_of(SEARCH))
def test_a_search(client: httpx.Client, body: dict[str, Any]) -> None:
    check(client, "/products/search", body)


@often
@given(some_of(COUNTS))
def test_a_count(client: httpx.Client, body: dict[str, Any]) -> None:
    check(client, "/products/facet-counts", body)


@often
@given(some_of(LOOKUP))
def test_a_lookup(client: httpx.Client, body: dict[str, Any]) -> None:
    check(client, "/products/lookup", body)


def attributes(size: int) -> list[str]:
    return [f"fit {number}" for number in range(size)]


def categories(size: int) -> list[dict[str, Any]]:
    return [{"key": f"{number}", "facets": FIT} for number in range(size)]


def ten_facets(more: int) -> list[dict[str, Any]]:
    names = [*(f"category_path.depth_{depth}" for depth in range(7)), "fit", "gender", "color"]
    return [{"name": name, "values": ["x"]} for name in [*names, "material"][: 10 + more]]


@pytest.mark.parametrize(
    ("path", "taken", "refused"),
    [
        ("/products/search", {"price_min": 0}, {"price_min": -1}),
        ("/products/search", {"similar_to_brands": ["a"]}, {"similar_to_brands": [" "]}),
        ("/products/search", {"catalogs": attributes(500)}, {"catalogs": attributes(501)}),
        ("/products/search", {"catalogs": ["acme"]}, {"catalogs": ["\x1c"]}),
        (
            "/products/search",
            {"q": "boots", "omit_generated_facets": attributes(50)},
            {"q": "boots", "omit_generated_facets": attributes(51)},
        ),
        ("/products/facet-counts", {"value_limit": 1000}, {"value_limit": 1001}),
        ("/products/facet-counts", {"value_limit": None}, {"value_limit": 0}),
        ("/products/facet-counts", {"attributes": attributes(50)}, {"attributes": attributes(51)}),
        ("/products/facet-counts", {"attributes": ["fit"]}, {"attributes": ["fit", "fit"]}),
        (
            "/products/facet-counts",
            {"categories": categories(100)},
            {"categories": categories(101)},
        ),
        (
            "/products/facet-counts",
            {"categories": categories(2)},
            {"categories": categories(1) * 2},
        ),
        (
            "/products/facet-counts",
            {"categories": [{"key": "x" * 200, "facets": ten_facets(0)}]},
            {"categories": [{"key": "x" * 201, "facets": ten_facets(0)}]},
        ),
        (
            "/products/facet-counts",
            {"categories": [{"key": "x", "facets": FIT}]},
            {"categories": [{"key": "x", "facets": []}]},
        ),
        (
            "/products/facet-counts",
            {"categories": [{"key": "x", "facets": FIT}]},
            {"categories": [{"key": "x", "facets": ten_facets(1)}]},
        ),
        ("/products/facet-counts", {}, {"facet_names": []}),
        (
            "/products/facet-counts",
            {"facet_names": ["color_family"]},
            {"facet_names": ["color_family", "color_family"]},
        ),
        (
            "/products/lookup",
            {"url": "https://acme.example/a", "resolutionMode": "index_only"},
            {
                "url": "https://acme.example/a",
                "resolutionMode": "index_only",
                "onDemandCachePolicy": "refresh",
            },
        ),
    ],
)
def test_each_limit(
    client: httpx.Client, path: str, taken: dict[str, Any], refused: dict[str, Any]
) -> None:
    assert refusal_of(f"/v1{path}", json.dumps(taken)) is None
    assert refusal_of(f"/v1{path}", json.dumps(refused)) is not None
    check(client, path, taken)
    check(client, path, refused)
