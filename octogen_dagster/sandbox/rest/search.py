"""Search: the products of each page, in order.

The quality order of several catalogs is the first product of each, then the second of each, and
so on. A search without keywords shows each product once, in that order. With keywords, page 1 is
ranked by relevance and the later pages show all matches in quality order, so the products of page
1 appear twice, as in the real service.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.text import slug_of, words_of
from octogen_dagster.sandbox.rest.cursors import Position
from octogen_dagster.sandbox.rest.request_bodies import SearchRequest

_MAX_RANKED_MATCHES = 1000
"""The number of matches, in quality order, from which the most relevant ones are chosen."""

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


def find_page(request: SearchRequest, catalogs: Sequence[Catalog], start: Position | None) -> Page:
    """Return a page of a search.

    Args:
        request: The search.
        catalogs: The catalogs to search.
        start: The start of the page; None for page 1.
    """
    query = _Query(request)
    matches = (
        Hit(product, relevance)
        for product in _in_quality_order(catalogs, start or _START)
        if (relevance := query.relevance(product)) is not None
    )
    if start is None and query.has_keywords:
        return _most_relevant(list(islice(matches, _MAX_RANKED_MATCHES)), request.limit)
    hits = list(islice(matches, request.limit + 1))
    if len(hits) <= request.limit:
        return Page(hits, None)
    following = hits.pop().product
    page = (start or _START).page + 1
    return Page(hits, Position(page, following.index, following.catalog.key))


def _most_relevant(matches: list[Hit], limit: int) -> Page:
    ranked = sorted(matches, key=lambda hit: -hit.relevance)
    continues_at = None if len(matches) <= limit else _START._replace(page=2)
    return Page(ranked[:limit], continues_at)


def _in_quality_order(catalogs: Sequence[Catalog], start: Position) -> Iterator[Product]:
    by_key = sorted(catalogs, key=lambda catalog: catalog.key)
    for catalog in by_key:
        if catalog.key >= start.catalog and start.place < catalog.product_count:
            yield catalog.product(start.place)
    longest = max((catalog.product_count for catalog in by_key), default=0)
    for index in range(start.place + 1, longest):
        for catalog in by_key:
            if index < catalog.product_count:
                yield catalog.product(index)


class _Query:
    """A search request, prepared to be compared with many products."""

    def __init__(self, request: SearchRequest) -> None:
        q = (request.q or "").strip()
        self.has_keywords = bool(q)
        self._terms = sorted(words_of(q))
        self._facets = [
            (facet_values(facet.name), frozenset(value.casefold() for value in facet.values))
            for facet in request.facets or ()
        ]
        self._price_min = request.price_min
        self._price_max = request.price_max

    def relevance(self, product: Product) -> int | None:
        """Return the relevance of a product: None if it does not match, 0 without keywords."""
        for values, wanted in self._facets:
            if not any(value.casefold() in wanted for value in values(product)):
                return None
        if not self._has_right_price(product):
            return None
        return self._keyword_relevance(product) if self.has_keywords else 0

    def _has_right_price(self, product: Product) -> bool:
        if self._price_min is None and self._price_max is None:
            return True
        price = product.current_price
        return (
            price is not None
            and (self._price_min is None or price >= self._price_min)
            and (self._price_max is None or price <= self._price_max)
        )

    def _keyword_relevance(self, product: Product) -> int | None:
        fields = _searched_fields(product)
        total = 0
        for term in self._terms:
            weight = next((weight for weight, words in fields if term in words), None)
            if weight is None:
                return None
            total += weight
        return total or None


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


def facet_values(name: str) -> Callable[[Product], Sequence[str]]:
    """Return a function that returns the canonical values of a product for the facet `name`.

    A name that is not a facet is taken for an attribute. A product without that attribute has no
    values.
    """
    if name in _FACETS:
        return _FACETS[name]
    depth = re.fullmatch(r"category_path\.depth_([0-6])", name)
    if depth:
        level = int(depth[1])
        return lambda product: product.kind.category_path[level : level + 1]
    attribute = name.removeprefix("attribute_facets.")
    return lambda product: _known(product.attributes.get(attribute))


def _known(*values: str | None) -> Sequence[str]:
    return [value for value in values if value is not None]


_FACETS: dict[str, Callable[[Product], Sequence[str]]] = {
    "brand_name": lambda product: _known(brand.name if (brand := product.brand) else None),
    "brand_slug": lambda product: _known(slug_of(brand.name) if (brand := product.brand) else None),
    "raw_brand_name": lambda product: _known(product.raw_brand_name),
    "product_type": lambda product: (product.kind.noun,),
    "gender": lambda product: _known(product.gender),
    "age_groups": lambda product: product.age_groups,
    "color": lambda product: _known(color.name if (color := product.color) else None),
    "color_family": lambda product: _known(color.family if (color := product.color) else None),
    "is_activewear": lambda product: ("true" if product.kind.is_activewear else "false",),
}
