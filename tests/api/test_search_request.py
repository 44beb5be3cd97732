from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from octogen_dagster.api.facets import ColorFamily, Facet, FacetName
from octogen_dagster.api.search_request import SearchRequest


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
    )
    assert request.body() == {
        "catalog": "acme",
        "q": "linen dress",
        "facets": [{"name": "color_family", "values": ["Red", "multicolor"]}],
        "price_min": 0,
        "price_max": 99.5,
        "cursor": "c",
        "limit": 7,
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
