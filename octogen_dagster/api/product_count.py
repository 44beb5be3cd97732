"""The number of products that match a search, counted without a charged search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from octogen_dagster.api.response_model import ResponseModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.api.search_request import SearchFilters

_OF_SEARCHES_ONLY = {"understand", "relax", "similar_to_brands"}
_CATEGORY = {"key": "products", "facets": []}


class CategoryCount(ResponseModel):
    """The number of products in a category."""

    key: str | None = None
    count: int = Field(ge=0)


class FacetCounts(ResponseModel):
    """The answer to `count_request`, which has one category."""

    categories: list[CategoryCount] = Field(min_length=1, max_length=1)


def count_request(filters: SearchFilters, catalogs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the body of `POST /products/facet-counts` that counts one category: all products.

    Filters are derived from the keywords of such a request, so it has them only if the search
    derives them too. The text itself narrows no count.

    Args:
        filters: The search.
        catalogs: The keys of its catalogs; none counts in all catalogs.
    """
    body = {
        name: value for name, value in filters.as_json().items() if name not in _OF_SEARCHES_ONLY
    }
    if not filters.understand:
        body.pop("q", None)
    if catalogs:
        body["catalogs"] = list(catalogs)
    return body | {"categories": [_CATEGORY]}
