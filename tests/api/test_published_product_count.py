"""The published models accept how products are counted."""

from __future__ import annotations

from typing import Any

import pytest
from octogen_ai_sdk.generated.models import (
    ProgrammaticFacetCountsRequest,
    ProgrammaticFacetCountsResponse,
)

from octogen_dagster.api.product_count import count_request
from octogen_dagster.api.search_request import SearchFilters
from tests.api.counts import counted

FACETS = [{"name": "gender", "values": ["female"]}]
EVERYTHING = {
    "facets": FACETS,
    "exclude_facets": FACETS,
    "price_min": 1,
    "price_max": 2,
    "brand_quality_min": 1,
    "brand_quality_max": 6,
    "similar_to_brands": ["acme"],
    "q": "boots",
    "understand": True,
    "omit_generated_facets": ["color"],
    "fallback_category": ["Shoes"],
    "relax": True,
}


@pytest.mark.parametrize("search", [{}, {"q": "boots"}, EVERYTHING])
@pytest.mark.parametrize("catalogs", [[], ["acme", "zen"]])
def test_the_published_model_accepts_each_request(
    search: dict[str, Any], catalogs: list[str]
) -> None:
    body = count_request(SearchFilters(**search), catalogs)
    published = ProgrammaticFacetCountsRequest.model_validate(body)
    assert published.catalogs == (catalogs or None)
    assert published.categories
    assert [category.facets for category in published.categories] == [[]]
    kept = set(search) - {"understand", "relax", "similar_to_brands"}
    kept -= set() if search.get("understand") else {"q"}
    assert set(body) == kept | {"categories"} | ({"catalogs"} if catalogs else set())


def test_the_published_model_accepts_the_answer_of_other_tests() -> None:
    (category,) = ProgrammaticFacetCountsResponse.model_validate(counted(7)).categories
    assert category.count == 7
