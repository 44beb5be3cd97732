"""Search pages, facet counts and coverage.

The quality order across catalogs is the first product of each catalog, then the second product of
each catalog, and so on. A search without keywords shows each product once, in this order. With
keywords, page 1 is ranked by relevance and later pages show all matches in quality order, so page
1's products appear twice, as in the real service. If all matches are equally relevant, page 2
equals page 1.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from octogen_dagster.sandbox.catalog import FIRST_INDEX_RUN, Catalog, Product
from octogen_dagster.sandbox.facets import FacetValues, bare_name, facet_of_attribute, facet_values
from octogen_dagster.sandbox.models import (
    CurrentFilters,
    Facet,
    FacetCountsRequest,
    SeedSearchRequest,
)
from octogen_dagster.sandbox.words import words_of

_MAX_RANKED_MATCHES = 1000
"""How many of the first matches in quality order are ranked by relevance."""

_MAX_SAMPLED_PRODUCTS = 1000
_MAX_TOP_VALUES = 10
_MAX_COUNTED_VALUES = 100
_COVERED_FIELDS = {
    "gender": ("Gender", "enrichment"),
    "color_family": ("Color family", "enrichment"),
    "category_path.depth_0": ("Category", "enrichment"),
    "brand_name": ("Brand", "brands"),
}
"""The display name and source of each facet, in the order in which a shop's coverage lists them."""

_cached_words = cache(words_of)

Query: TypeAlias = SeedSearchRequest | CurrentFilters


class Position(NamedTuple):
    """The start of a page: its number, and the place of its first product in the quality order."""

    page: int
    place: int
    catalog: str


_START = Position(page=1, place=0, catalog="")


class Hit(NamedTuple):
    """A product found by a search. The relevance is 0 without keywords."""

    product: Product
    relevance: int


def encode_cursor(position: Position, body: Mapping[str, Any]) -> str:
    """Return the cursor for a position. It is valid only for a search with this body."""
    content = json.dumps([_digest(body), *position]).encode()
    return base64.urlsafe_b64encode(content).decode()


def decode_cursor(cursor: object, body: Mapping[str, Any]) -> Position | None:
    """Return the position, or None if the cursor is not valid for a search with this body."""
    try:
        digest, *position = json.loads(base64.urlsafe_b64decode(str(cursor)))
    except (ValueError, TypeError):
        return None
    return Position(*position) if digest == _digest(body) else None


def _digest(body: Mapping[str, Any]) -> str:
    search = {name: value for name, value in body.items() if name != "cursor"}
    return hashlib.sha256(json.dumps(search, sort_keys=True).encode()).hexdigest()[:16]


def find_page(
    query: Query, catalogs: Sequence[Catalog], start: Position | None, limit: int
) -> tuple[list[Hit], Position | None]:
    """Return the hits on a page, and the start of the next page.

    If `start` is None, the first page is returned. If the returned start is None, there are no more
    pages.
    """
    matches = iter_matches(query, catalogs, start or _START)
    if start is None and query.keywords:
        candidates = list(islice(matches, _MAX_RANKED_MATCHES))
        ranked = sorted(candidates, key=lambda hit: -hit.relevance)  # equals keep their order
        following = None if len(candidates) <= limit else _START._replace(page=2)
        return ranked[:limit], following
    hits = list(islice(matches, limit + 1))
    if len(hits) <= limit:
        return hits, None
    first = hits.pop().product
    return hits, Position((start or _START).page + 1, first.index, first.catalog.key)


def iter_matches(
    query: Query, catalogs: Sequence[Catalog], start: Position = _START
) -> Iterator[Hit]:
    """Yield all matching products in quality order, from `start` on."""
    terms = sorted(words_of(query.keywords))
    excluded = query.exclude_facets if isinstance(query, CurrentFilters) else None
    filters = [(True, *_prepared(each)) for each in query.facets or ()]
    filters += [(False, *_prepared(each)) for each in excluded or ()]
    low, high = query.price_min, query.price_max
    for product in _in_quality_order(catalogs, start):
        if any(
            is_wanted != any(value.casefold() in wanted for value in values_of(product))
            for is_wanted, values_of, wanted in filters
        ):
            continue
        if (low is not None or high is not None) and not _is_within(product, low, high):
            continue
        relevance = _relevance(product, terms) if query.keywords else 0
        if relevance is not None:
            yield Hit(product, relevance)


def _in_quality_order(catalogs: Sequence[Catalog], start: Position) -> Iterator[Product]:
    by_key = sorted(catalogs, key=lambda catalog: catalog.key)
    for catalog in by_key:
        if catalog.key >= start.catalog and catalog.contains(start.place):
            yield Product(catalog, start.place)
    longest = max((catalog.size for catalog in by_key), default=0)
    for index in range(start.place + 1, longest):
        for catalog in by_key:
            if catalog.contains(index):
                yield Product(catalog, index)


def _prepared(facet: Facet) -> tuple[FacetValues, frozenset[str]]:
    return facet_values(facet.name), frozenset(value.casefold() for value in facet.values)


def _is_within(product: Product, low: float | None, high: float | None) -> bool:
    price = product.current_price
    return price is not None and (low is None or price >= low) and (high is None or price <= high)


def _relevance(product: Product, terms: Sequence[str]) -> int | None:
    """Add up the weights of the fields with the terms. Return None if a term is not found."""
    fields = _searched_fields(product)
    total = 0
    for term in terms:
        weight = next((weight for weight, words in fields if term in words), None)
        if weight is None:
            return None
        total += weight
    return total or None


def _searched_fields(product: Product) -> list[tuple[int, frozenset[str]]]:
    """Return the words in each field of a product with the field's weight, highest weight first."""
    kind, brand, color = product.kind, product.brand, product.color
    fields = []
    if product.title is not None:
        titles = (product.line, product.adjective, kind.noun)
        fields += [(5, _cached_words(text)) for text in titles]
    if brand is not None:
        fields.append((3, _cached_words(f"{brand.name} {product.raw_brand_name}")))
    if color is not None:
        fields.append((2, _cached_words(f"{color.label} {color.name} {color.family}")))
    return fields + [(1, _cached_words(name)) for name in kind.category_path]


def count_facets(request: FacetCountsRequest, catalogs: Sequence[Catalog]) -> dict[str, Any]:
    """Return the requested counts. Keywords do not reduce them."""
    query, own = request.model_copy(update={"q": None}), request.facets or []

    def values(facet: str) -> list[dict[str, Any]]:
        others = [each for each in own if bare_name(each.name) != bare_name(facet)]
        values_of = facet_values(facet)
        counts = Counter(
            value.lower()
            for hit in iter_matches(query.model_copy(update={"facets": others}), catalogs)
            for value in values_of(hit.product)
        )
        ranked = counts.most_common(request.value_limit or _MAX_COUNTED_VALUES)
        return [{"value": value, "count": count} for value, count in ranked]

    def products(facets: Sequence[Facet]) -> int:
        narrowed = query.model_copy(update={"facets": [*own, *facets]})
        return sum(1 for _ in iter_matches(narrowed, catalogs))

    return {
        "attributes": [
            {"handle": name, "facetName": facet, "values": values(facet)}
            for name in request.attributes or ()
            for facet in [facet_of_attribute(name)]
        ],
        "categories": [
            {"key": category.key, "count": products(category.facets)}
            for category in request.categories or ()
        ],
        "facets": [{"name": name, "values": values(name)} for name in request.counted_facets],
    }


def coverage(catalog: Catalog) -> dict[str, Any]:
    """Return a catalog's coverage by field, estimated from its first products."""
    indexes = (index for index in range(catalog.size) if catalog.contains(index))
    sample = [Product(catalog, index) for index in islice(indexes, _MAX_SAMPLED_PRODUCTS)]
    scale = catalog.product_count / len(sample) if sample else 0.0
    fields = [_covered_field(name, sample, scale) for name in _COVERED_FIELDS]
    return {
        "catalog": catalog.key,
        "catalogDisplayName": catalog.shop.display_name,
        "productCount": catalog.product_count,
        "computedAt": (catalog.last_indexed_at or FIRST_INDEX_RUN).isoformat(),
        "fields": [field for field in fields if field["populated"]],
        "price": None,
    }


def _covered_field(name: str, sample: Sequence[Product], scale: float) -> dict[str, Any]:
    display_name, source = _COVERED_FIELDS[name]
    values = [facet_values(name)(product) for product in sample]
    counts = Counter(value for each in values for value in each)
    known = sum(bool(each) for each in values)
    return {
        "name": name,
        "displayName": display_name,
        "source": source,
        "coverage": round(known / len(sample), 3) if sample else 0.0,
        "populated": round(known * scale),
        "distinct": len(counts),
        "truncated": len(counts) > _MAX_TOP_VALUES,
        "topValues": [
            {"value": value.lower(), "label": value, "count": round(count * scale)}
            for value, count in counts.most_common(_MAX_TOP_VALUES)
        ],
    }
