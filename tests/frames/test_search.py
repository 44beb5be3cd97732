"""What to read, as Python, run configuration and YAML write it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from octogen_dagster.api.facets import Facet
from octogen_dagster.api.search_request import SearchRequest
from octogen_dagster.frames.search import ProductSearch


def test_the_request_for_page_1_has_all_filters() -> None:
    facets = [Facet(name="brand_name", values=["Acme"])]
    search = ProductSearch(
        q="jacket", facets=facets, price_min=1, price_max=9, catalogs=["acme", "zen"], page_size=20
    )
    assert search.request("acme") == SearchRequest(
        q="jacket", facets=facets, price_min=1, price_max=9, catalog="acme", limit=20
    )
    assert search.request(None).catalog is None


def test_the_request_has_the_fields_of_the_current_contract() -> None:
    filters = {
        "q": "dress",
        "understand": True,
        "exclude_facets": [{"name": "fit", "values": ["slim"]}],
        "omit_generated_facets": ["color"],
        "fallback_category": ["apparel & accessories"],
        "brand_quality_min": 2.0,
        "brand_quality_max": 5.0,
        "similar_to_brands": ["Acme"],
        "relax": True,
    }
    body = ProductSearch.model_validate(filters).request("acme").body()
    assert body == filters | {"catalog": "acme", "limit": 100}


@pytest.mark.parametrize(
    ("page_size", "max_products", "limit"), [(100, None, 100), (100, 7, 7), (20, 100, 20)]
)
def test_a_page_holds_no_more_products_than_are_wanted(
    page_size: int, max_products: int | None, limit: int
) -> None:
    search = ProductSearch(page_size=page_size, max_products=max_products)
    assert search.request("acme").limit == limit


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"catalogs": ["b", "a", "b", "a", "c"]}, "catalogs name a, b more than once"),
        ({"catalogs": [" "]}, "at least 1 character"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 101}, "page_size"),
        ({"max_products": 0}, "max_products"),
        ({"price_min": 9, "price_max": 1}, "price_min 9.0 is above price_max 1.0"),
        ({"colour": "red"}, "colour"),
        ({"facets": [{"name": "gender", "values": ["mens"]}]}, "gender has no value 'mens'"),
        ({"exclude_facets": [{"name": "gender", "values": ["mens"]}]}, "gender has no value"),
        ({"q": "dress", "relax": True}, "relax needs q and understand=True"),
    ],
)
def test_a_field_out_of_its_range_is_named(fields: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        ProductSearch.model_validate(fields)


def test_spaces_around_a_catalog_key_do_not_count() -> None:
    assert ProductSearch(catalogs=[" acme\n"]).catalogs == ["acme"]
    with pytest.raises(ValidationError, match="catalogs name acme more than once"):
        ProductSearch(catalogs=["acme", " acme"])
