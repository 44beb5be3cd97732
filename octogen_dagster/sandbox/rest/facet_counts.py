"""The number of products for each value of a facet, and of each category."""

from collections import Counter
from collections.abc import Iterator, Sequence

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.rest.effective_query import EffectiveQuery, sent_facets
from octogen_dagster.sandbox.rest.facets import bare_name, facet_of_attribute, facet_values
from octogen_dagster.sandbox.rest.request_bodies import Facet, FacetCountsRequest
from octogen_dagster.sandbox.rest.search import iter_matches
from octogen_dagster.sandbox.rest.views import Json, effective_query_view

_VALUE_LIMIT = 100


def count_facets(
    request: FacetCountsRequest, query: EffectiveQuery, catalogs: Sequence[Catalog]
) -> Json:
    """Return the counts that a request asks for.

    The filters that were understood apply, the text does not. The values of a facet are counted
    without the caller's own filter by that facet.

    Args:
        request: What to count.
        query: What the request was understood as.
        catalogs: The catalogs to count in.
    """
    filters = query.model_copy(update={"text": "", "similar_to_brands": None})

    def value_counts(facet: str) -> list[Json]:
        products = _matches(_without_own_filter(filters, facet), catalogs)
        values_of = facet_values(facet)
        counts = Counter(value.lower() for product in products for value in values_of(product))
        ranked = counts.most_common(request.value_limit or _VALUE_LIMIT)
        return [{"value": value, "count": count} for value, count in ranked]

    return {
        "attributes": [
            {"handle": name, "facetName": facet, "values": value_counts(facet)}
            for name in request.attributes or ()
            for facet in [facet_of_attribute(name)]
        ],
        "categories": [
            {"key": category.key, "count": _count(_with(filters, category.facets), catalogs)}
            for category in request.categories or ()
        ],
        "facets": [{"name": name, "values": value_counts(name)} for name in request.counted_facets],
        "effectiveQuery": effective_query_view(query),
    }


def _matches(query: EffectiveQuery, catalogs: Sequence[Catalog]) -> Iterator[Product]:
    return (hit.product for hit in iter_matches(query, catalogs))


def _count(query: EffectiveQuery, catalogs: Sequence[Catalog]) -> int:
    return sum(1 for _ in iter_matches(query, catalogs))


def _with(query: EffectiveQuery, facets: Sequence[Facet]) -> EffectiveQuery:
    return query.model_copy(update={"facets": [*query.facets, *sent_facets(facets)]})


def _without_own_filter(query: EffectiveQuery, facet: str) -> EffectiveQuery:
    others = [
        other
        for other in query.facets
        if other.source == "generated" or bare_name(other.name) != bare_name(facet)
    ]
    return query.model_copy(update={"facets": others})
