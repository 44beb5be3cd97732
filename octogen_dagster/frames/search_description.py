"""A search in words, for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octogen_dagster.api.facets import Facet
    from octogen_dagster.frames.search import ProductSearch


def describe_search(search: ProductSearch, *, of: str | None = None) -> str:
    """Say which products a search reads, such as "all products of northpeak".

    Args:
        search: The search.
        of: What the products are of; by default the catalogs that the search names.
    """
    found = "products" if search.has_filters else "all products"
    if search.max_products is not None:
        found = f"the first {search.max_products:,} products"
    of = of or ", ".join(search.catalogs)
    filters = "; ".join(_filters(search))
    return f"{found}{of and f' of {of}'}{filters and f' that match {filters}'}"


def _filters(search: ProductSearch) -> Iterator[str]:
    if search.q:
        yield f"“{search.q}”{', as Octogen understands it' if search.understand else ''}"
    yield from map(_facet, search.facets)
    yield from (f"not {_facet(facet)}" for facet in search.exclude_facets)
    if search.price_min is not None:
        yield f"price from {search.price_min:g}"
    if search.price_max is not None:
        yield f"price up to {search.price_max:g}"
    if search.similar_to_brands:
        yield f"brands similar to {' or '.join(search.similar_to_brands)}"
    if search.brand_quality_min is not None:
        yield f"brand quality from {search.brand_quality_min:g}"
    if search.brand_quality_max is not None:
        yield f"brand quality up to {search.brand_quality_max:g}"


def _facet(facet: Facet) -> str:
    return f"{facet.name} {' or '.join(facet.values)}"
