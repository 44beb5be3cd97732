"""The fields of a search: what is made from them."""

from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster.api.search import CURRENT_FIELDS, ProductSearch, SearchFilters, SearchRequest

FACET = {"name": "fit", "values": ["slim"]}


def test_the_fields_of_the_seed_are_those_that_the_current_contract_has_not_alone() -> None:
    seed = {"q", "facets", "price_min", "price_max", "catalog", "cursor", "limit"}
    assert SearchRequest.model_fields.keys() - set(CURRENT_FIELDS) == seed


@pytest.mark.parametrize(
    "fields", [{}, {"q": " "}, {"understand": True}, {"similar_to_brands": ["Acme"]}], ids=str
)
def test_what_ranks_or_does_nothing_is_no_filter(fields: dict[str, Any]) -> None:
    assert not SearchFilters.model_validate(fields).has_filters
    assert ProductSearch.model_validate(fields).reads_whole_catalogs


@pytest.mark.parametrize(
    "fields",
    [
        {"q": "dress"},
        {"facets": [FACET]},
        {"exclude_facets": [FACET]},
        {"price_min": 0},
        {"price_max": 9},
        {"brand_quality_min": 1},
        {"brand_quality_max": 6},
    ],
    ids=str,
)
def test_what_leaves_out_products_is_a_filter(fields: dict[str, Any]) -> None:
    assert SearchFilters.model_validate(fields).has_filters
    assert not ProductSearch.model_validate(fields).reads_whole_catalogs


def test_a_request_names_one_catalog_or_several() -> None:
    with pytest.raises(ValueError, match="`catalog` and `catalogs` cannot both be set"):
        SearchRequest(catalog="a", catalogs=["b"])
    with pytest.raises(ValueError, match="catalogs"):
        SearchRequest(catalogs=[f"key {number}" for number in range(501)])
