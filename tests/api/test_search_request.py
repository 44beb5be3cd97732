from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from octogen_dagster.api.facets import ColorFamily, Facet, FacetName
from octogen_dagster.api.search_request import SearchFilters, SearchRequest

UNDERSTOOD = {"q": "dress", "understand": True}


def test_fields_that_are_not_set_are_left_out() -> None:
    assert SearchRequest().body() == {"limit": 50}
    assert SearchRequest(catalog="acme", facets=[]).body() == {"catalog": "acme", "limit": 50}


def test_all_fields_are_snake_case_json() -> None:
    request = SearchRequest(
        catalog="acme",
        q="linen dress",
        facets=[Facet(name=FacetName.COLOR_FAMILY, values=[ColorFamily.RED, "multicolor"])],
        price_min=0,
        price_max=99.5,
        cursor="c",
        limit=7,
        understand=True,
        exclude_facets=[Facet(name="fit", values=["slim"])],
        omit_generated_facets=["color"],
        fallback_category=["apparel & accessories", "clothing"],
        brand_quality_min=2,
        brand_quality_max=5.5,
        similar_to_brands=["Acme"],
        relax=True,
    )
    assert request.body() == {
        "catalog": "acme",
        "q": "linen dress",
        "facets": [{"name": "color_family", "values": ["Red", "multicolor"]}],
        "price_min": 0,
        "price_max": 99.5,
        "cursor": "c",
        "limit": 7,
        "understand": True,
        "exclude_facets": [{"name": "fit", "values": ["slim"]}],
        "omit_generated_facets": ["color"],
        "fallback_category": ["apparel & accessories", "clothing"],
        "brand_quality_min": 2,
        "brand_quality_max": 5.5,
        "similar_to_brands": ["Acme"],
        "relax": True,
    }


@pytest.mark.parametrize("understand", [True, False])
def test_keywords_are_sent_with_understand_and_nothing_else_is(understand: bool) -> None:
    for q, sent in (("dress", {"understand": understand}), ("  ", {}), (None, {})):
        body = SearchRequest(q=q, understand=understand).body()
        assert {name: body[name] for name in body.keys() & {"understand"}} == sent


def test_a_price_of_zero_is_sent() -> None:
    assert SearchRequest(price_min=0, price_max=0).body() == {
        "price_min": 0,
        "price_max": 0,
        "limit": 50,
    }


@given(st.integers(1, 100), st.floats(0, 1e6), st.floats(0, 1e6))
def test_arguments_in_their_range_pass(limit: int, price: float, other: float) -> None:
    low, high = sorted((price, other))
    body = SearchRequest(limit=limit, price_min=low, price_max=high).body()
    assert body == {"limit": limit, "price_min": low, "price_max": high}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"catalog": ""}, "catalog"),
        ({"catalog": " \t"}, "catalog"),
        ({"q": ""}, "q"),
        ({"cursor": ""}, "cursor"),
        ({"price_min": -1}, "price_min"),
        ({"price_max": float("nan")}, "price_max"),
        ({"price_max": float("inf")}, "price_max"),
        ({"price_min": 2, "price_max": 1}, "price_min 2.0 is above price_max 1.0"),
        ({"facets": [{"name": "fit", "values": []}]}, "facets.0.values"),
        ({"facets": [{"name": "fit", "values": ["slim", " "]}]}, "facets.0.values.1"),
        ({"facets": [{"name": " ", "values": ["slim"]}]}, "facets.0.name"),
        ({"facets": [{"name": "fit", "value": ["slim"]}]}, "facets.0.value"),
        ({"facets": [{"name": "fit", "values": "slim"}]}, "facets.0.values"),
        ({"facets": [{"name": n, "values": ["a"]} for n in ("fit", "Fit")]}, "facets name fit"),
        ({"facets": [{"name": f"f{n}", "values": ["a"]} for n in range(51)]}, "facets"),
        ({"catalogs": ["acme"]}, "catalogs"),
        ({"understand": "maybe"}, "understand"),
        ({"exclude_facets": [{"name": "fit", "values": []}]}, "exclude_facets.0.values"),
        (
            {"exclude_facets": [{"name": n, "values": ["a"]} for n in ("fit", "Fit")]},
            "exclude_facets name fit more than once: put all values in one facet",
        ),
        ({"exclude_facets": [{"name": f"f{n}", "values": ["a"]} for n in range(51)]}, "facets"),
        (UNDERSTOOD | {"omit_generated_facets": [" "]}, "omit_generated_facets.0"),
        (
            UNDERSTOOD | {"omit_generated_facets": ["color", "Color"]},
            "omit_generated_facets name color more than once",
        ),
        (
            UNDERSTOOD
            | {"omit_generated_facets": ["Fit"], "facets": [{"name": "fit", "values": ["a"]}]},
            "omit_generated_facets names Fit, and facets does too",
        ),
        (UNDERSTOOD | {"fallback_category": list("abcde")}, "fallback_category"),
        (UNDERSTOOD | {"fallback_category": [""]}, "fallback_category.0"),
        ({"omit_generated_facets": ["color"]}, "omit_generated_facets needs q and understand=True"),
        ({"q": "a", "fallback_category": ["a"]}, "fallback_category needs q and understand=True"),
        ({"understand": True, "relax": True}, "relax needs q and understand=True"),
        ({"q": " ", "understand": True, "relax": True}, "relax needs q and understand=True"),
        ({"brand_quality_min": 0.9}, "brand_quality_min"),
        ({"brand_quality_max": 6.1}, "brand_quality_max"),
        ({"brand_quality_min": float("nan")}, "brand_quality_min"),
        (
            {"brand_quality_min": 5, "brand_quality_max": 2},
            "brand_quality_min 5.0 is above brand_quality_max 2.0: swap them",
        ),
        ({"similar_to_brands": list("abcdefghijk")}, "similar_to_brands"),
        ({"similar_to_brands": [" "]}, "similar_to_brands.0"),
    ],
)
def test_an_argument_out_of_its_range_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SearchRequest.model_validate(fields)
    places = [".".join(map(str, error["loc"])) for error in caught.value.errors()]
    assert named in places or named in str(caught.value)


def test_fifty_facets_are_allowed() -> None:
    facets = [{"name": f"f{number}", "values": ["a"]} for number in range(50)]
    assert len(SearchRequest.model_validate({"facets": facets}).facets) == 50


@pytest.mark.parametrize(
    "fields",
    [{}, {"q": " "}, {"understand": True}, {"similar_to_brands": ["Acme"]}],
    ids=str,
)
def test_what_ranks_or_does_nothing_is_no_filter(fields: dict[str, Any]) -> None:
    assert not SearchFilters.model_validate(fields).has_filters


@pytest.mark.parametrize(
    "fields",
    [
        {"q": "dress"},
        {"facets": [{"name": "fit", "values": ["slim"]}]},
        {"exclude_facets": [{"name": "fit", "values": ["slim"]}]},
        {"price_min": 0},
        {"price_max": 9},
        {"brand_quality_min": 1},
        {"brand_quality_max": 6},
    ],
    ids=str,
)
def test_what_leaves_out_products_is_a_filter(fields: dict[str, Any]) -> None:
    assert SearchFilters.model_validate(fields).has_filters
