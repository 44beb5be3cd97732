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
        headers = {"Authorization": f"Bearer {sandbox.api_key}", "Content-Type": "application/json"}
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


@pytest.mark.slow
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
