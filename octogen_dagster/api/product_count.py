"""The least number of products that match a search, counted without a charged search.

The service counts no products as such. It counts those of each top-level category, and a sum of
these misses the products that have no category.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from octogen_dagster.api.models import ResponseModel
from octogen_dagster.api.search import MAX_CATALOGS, FacetName, SearchFilters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from octogen_dagster.api.search import Facet

_CATEGORY = FacetName.CATEGORY_PATH_DEPTH_0.value
_MAX_CATEGORIES = 1_000
_OF_SEARCHES_ONLY = {"understand", "relax", "similar_to_brands"}
_FIELDS = {*SearchFilters.model_fields, "catalogs"} - _OF_SEARCHES_ONLY


class ValueCount(ResponseModel):
    """The number of products that have a value of a facet."""

    value: str
    count: int = Field(ge=0)


class FacetCount(ResponseModel):
    """The numbers of products by the values of a facet."""

    values: list[ValueCount]


class FacetCounts(ResponseModel):
    """The answer to `count_request`, which has one facet."""

    facets: list[FacetCount] = Field(min_length=1, max_length=1)

    def products(self, filters: SearchFilters) -> int:
        """Add up the products of all categories that the search does not leave out.

        The service counts without the caller's own filter by the facet that it counts.
        """
        wanted, unwanted = _categories(filters.facets), _categories(filters.exclude_facets)
        return sum(
            each.count
            for each in self.facets[0].values
            if (not wanted or each.value.casefold() in wanted)
            and each.value.casefold() not in unwanted
        )


def count_request(filters: SearchFilters, catalogs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the body of `POST /products/facet-counts` that counts the top-level categories.

    Filters are derived from the keywords of such a request, so it has them only if the search
    derives them too. The text itself narrows no count.

    Raises:
        ValueError: There are too many catalogs, one has an empty key, or they are one text.
    """
    if isinstance(catalogs, str):
        raise ValueError(
            f"catalogs must be a list, not the text {catalogs!r}: write [{catalogs!r}]"
        )
    body = {name: value for name, value in filters.as_json().items() if name in _FIELDS}
    if not filters.understand:
        body.pop("q", None)
    if catalogs:
        body["catalogs"] = list(catalogs)
    keys = body.get("catalogs", [])
    if len(keys) > MAX_CATALOGS:
        raise ValueError(
            f"catalogs has {len(keys):,} keys, and one request counts the products of at most "
            f"{MAX_CATALOGS}: count them in parts"
        )
    if not all(key.strip() for key in keys):
        raise ValueError("catalogs has an empty key: remove it")
    return body | {"facet_names": [_CATEGORY], "value_limit": _MAX_CATEGORIES}


def _categories(facets: Iterable[Facet]) -> set[str]:
    return {
        value.casefold()
        for facet in facets
        if facet.name.lower() == _CATEGORY
        for value in facet.values
    }
