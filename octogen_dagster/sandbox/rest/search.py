"""Search: the products of each page, in order.

The quality order of several catalogs is the first product of each, then the second of each, and
so on. A search without keywords shows each product once, in that order. With keywords, page 1 is
ranked by relevance and the later pages show all matches in quality order, so the products of page
1 appear twice, as in the real service. If all matches are equally relevant, page 2 shows exactly
what page 1 did. The same holds for a search by similarity to brands.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

from octogen_dagster.sandbox.data.brands import quality_score
from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.text import words_of
from octogen_dagster.sandbox.rest.cursors import Position
from octogen_dagster.sandbox.rest.effective_query import EffectiveFacet, EffectiveQuery
from octogen_dagster.sandbox.rest.facets import FacetValues, facet_values

_MAX_RANKED_MATCHES = 1000
"""The number of matches, in quality order, from which the most relevant ones are chosen."""

_SIMILAR_BRAND_RELEVANCE = 3

_START = Position(page=1, place=0, catalog="")

_vocabulary_words = cache(words_of)


class Hit(NamedTuple):
    """A product that a search found. Its relevance is 0 if there were no keywords."""

    product: Product
    relevance: int


class Page(NamedTuple):
    """A page of a search. `continues_at` is None on the last page."""

    hits: list[Hit]
    continues_at: Position | None


def find_page(
    query: EffectiveQuery, catalogs: Sequence[Catalog], start: Position | None, limit: int
) -> Page:
    """Return a page of a search.

    Args:
        query: The search.
        catalogs: The catalogs to search.
        start: The start of the page; None for page 1.
        limit: The number of products of a page.
    """
    matches = iter_matches(query, catalogs, start or _START)
    if start is None and (query.text or query.similar_to_brands):
        return _most_relevant(list(islice(matches, _MAX_RANKED_MATCHES)), limit)
    hits = list(islice(matches, limit + 1))
    if len(hits) <= limit:
        return Page(hits, None)
    following = hits.pop().product
    page = (start or _START).page + 1
    return Page(hits, Position(page, following.index, following.catalog.key))


def iter_matches(
    query: EffectiveQuery, catalogs: Sequence[Catalog], start: Position = _START
) -> Iterator[Hit]:
    """Return all products that match, in quality order from `start` on."""
    matcher = _Matcher(query)
    for product in _in_quality_order(catalogs, start):
        relevance = matcher.relevance(product)
        if relevance is not None:
            yield Hit(product, relevance)


def _most_relevant(matches: list[Hit], limit: int) -> Page:
    ranked = sorted(matches, key=lambda hit: -hit.relevance)  # equals stay in quality order
    continues_at = None if len(matches) <= limit else _START._replace(page=2)
    return Page(ranked[:limit], continues_at)


def _in_quality_order(catalogs: Sequence[Catalog], start: Position) -> Iterator[Product]:
    by_key = sorted(catalogs, key=lambda catalog: catalog.key)
    for catalog in by_key:
        if catalog.key >= start.catalog and catalog.contains(start.place):
            yield catalog.product(start.place)
    longest = max((catalog.size for catalog in by_key), default=0)
    for index in range(start.place + 1, longest):
        for catalog in by_key:
            if catalog.contains(index):
                yield catalog.product(index)


class _Matcher:
    """A search, prepared to be compared with many products."""

    def __init__(self, query: EffectiveQuery) -> None:
        self._query = query
        self._terms = sorted(words_of(query.text))
        self._facets = [_prepared(facet) for facet in query.facets]
        self._excluded = [_prepared(facet) for facet in query.exclude_facets]
        self._similar = {name.casefold() for name in query.similar_to_brands or ()}

    def relevance(self, product: Product) -> int | None:
        """Return the relevance of a product: None if it does not match, 0 without keywords."""
        is_match = (
            all(_has_a_value(product, *facet) for facet in self._facets)
            and not any(_has_a_value(product, *facet) for facet in self._excluded)
            and self._has_right_price(product)
            and self._has_right_quality(product)
        )
        if not is_match:
            return None
        relevance = self._keyword_relevance(product) if self._query.text else 0
        brand = product.brand
        if relevance is not None and brand is not None and brand.name.casefold() in self._similar:
            relevance += _SIMILAR_BRAND_RELEVANCE
        return relevance

    def _has_right_price(self, product: Product) -> bool:
        query = self._query
        if query.price_min is None and query.price_max is None:
            return True
        return _is_within(product.current_price, query.price_min, query.price_max)

    def _has_right_quality(self, product: Product) -> bool:
        query = self._query
        if query.brand_quality_min is None and query.brand_quality_max is None:
            return True
        quality = quality_score(brand) if (brand := product.brand) else None
        return _is_within(quality, query.brand_quality_min, query.brand_quality_max)

    def _keyword_relevance(self, product: Product) -> int | None:
        fields = _searched_fields(product)
        total = 0
        for term in self._terms:
            weight = next((weight for weight, words in fields if term in words), None)
            if weight is None:
                return None
            total += weight
        return total or None


def _prepared(facet: EffectiveFacet) -> tuple[FacetValues, frozenset[str]]:
    return facet_values(facet.name), frozenset(value.casefold() for value in facet.values)


def _has_a_value(product: Product, values: FacetValues, wanted: frozenset[str]) -> bool:
    return any(value.casefold() in wanted for value in values(product))


def _is_within(value: float | None, low: float | None, high: float | None) -> bool:
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def _searched_fields(product: Product) -> list[tuple[int, frozenset[str]]]:
    """Return sets of words of a product with their weights, the highest weight first."""
    kind = product.kind
    fields = [(1, words) for words in map(_vocabulary_words, kind.category_path)]
    brand, raw_brand, color = product.brand, product.raw_brand_name, product.color
    if color is not None:
        fields.insert(0, (2, _vocabulary_words(f"{color.label} {color.name} {color.family}")))
    if brand is not None:
        fields.insert(0, (3, _vocabulary_words(f"{brand.name} {raw_brand}")))
    if product.title is not None:
        for text in (kind.noun, product.adjective, product.line):
            fields.insert(0, (5, _vocabulary_words(text)))
    return fields
