"""Which products a search finds, and in which order its pages show them.

Products are looked at in quality order: the first of every catalog, the second of every
catalog, and so on. A search without keywords shows them in that order, each once. With
keywords the first page is ranked by relevance and the later pages show all matches in
quality order again, as the service does, so the products of page 1 come twice.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

from octogen_dagster.sandbox.data.catalog import Catalog, Product, slug_of, words_of
from octogen_dagster.sandbox.rest.cursors import Position
from octogen_dagster.sandbox.rest.request_bodies import SearchRequest

_RANKED_MATCHES = 1000
"""How many matches, the best in quality, compete for the page that is ranked by relevance."""

_START = Position(page=1, place=0, catalog="")

_vocabulary_words = cache(words_of)


class Hit(NamedTuple):
    """A product that a search found; its relevance is 0 when there were no keywords."""

    product: Product
    relevance: int


class Page(NamedTuple):
    """One page of a search; `continues_at` is None on the last one."""

    hits: list[Hit]
    continues_at: Position | None


def find_page(request: SearchRequest, catalogs: Sequence[Catalog], start: Position | None) -> Page:
    """The page of `request` over `catalogs` that begins at `start`, by default the first."""
    query = _Query(request)
    matches = (
        Hit(product, relevance)
        for product in _in_quality_order(catalogs, start or _START)
        if (relevance := query.relevance(product)) is not None
    )
    if start is None and query.has_keywords:
        return _most_relevant(list(islice(matches, _RANKED_MATCHES)), request.limit)
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
    """A search request, prepared for being asked about many products."""

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
        """None when the product does not match; 0 when there are no keywords."""
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
    """The words of a product, the most telling first, each with its weight."""
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
    """How to read the canonical values that the facet `name` filters by.

    A name that is no facet of its own is taken for an attribute, and no product has values
    for an attribute it does not have.
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
