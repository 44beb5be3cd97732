"""The keyword arguments of a search, spelled once for all functions that pass them on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from octogen_dagster.api.search_request import SearchRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Unpack

    from octogen_dagster.api.facets import Facet


class CurrentArguments(TypedDict, total=False):
    """The arguments of a search that only a service of the current contract takes.

    Attributes:
        understand: True lets Octogen rewrite q and derive filters from it; False, the default,
            matches q as written, as the older contract does.
        exclude_facets: Filters that no product may match.
        omit_generated_facets: Names of filters that are not to be derived from an understood q.
        fallback_category: The category to search if none is derived from an understood q, root
            first.
        brand_quality_min: Lowest quality of the brand, 1 to 6, inclusive.
        brand_quality_max: Highest quality of the brand, 1 to 6, inclusive.
        similar_to_brands: Up to 10 brands; products in their style come first.
        relax: True searches with fewer derived filters if an understood q finds nothing.
    """

    understand: bool
    exclude_facets: Sequence[Facet | Mapping[str, Any]]
    omit_generated_facets: Sequence[str]
    fallback_category: Sequence[str]
    brand_quality_min: float | None
    brand_quality_max: float | None
    similar_to_brands: Sequence[str]
    relax: bool


class SearchArguments(CurrentArguments, total=False):
    """The arguments of a search whose pages are all read.

    Attributes:
        catalog: A catalog key; None searches all granted catalogs, in the current generation all
            of Octogen's, where each page is charged as it is read.
        q: Keywords.
        facets: Filters, each a `Facet` or `{"name": ..., "values": [...]}`.
        price_min: Lowest current price, inclusive.
        price_max: Highest current price, inclusive.
        limit: Products on a page, 1 to 100.
    """

    catalog: str | None
    q: str | None
    facets: Sequence[Facet | Mapping[str, Any]] | None
    price_min: float | None
    price_max: float | None
    limit: int


class PageArguments(SearchArguments, total=False):
    """The arguments of one page of a search.

    Attributes:
        cursor: `next_cursor` of the page before; None is the first page.
    """

    cursor: str | None


def search_request(**arguments: Unpack[PageArguments]) -> SearchRequest:
    """Validate the arguments of a search.

    Raises:
        pydantic.ValidationError: An argument is unknown or out of its range; a ValueError.
    """
    known = SearchRequest.model_fields
    given = {
        name: value for name, value in arguments.items() if value is not None or name not in known
    }
    return SearchRequest.model_validate(given)
