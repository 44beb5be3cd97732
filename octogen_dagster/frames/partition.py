"""Splits a catalog into parts by the brands of its products. No I/O.

A part is the products of some brands, less those of the parts before it; the remainder is the
products of none of these brands, with those that have no brand. So each product is in exactly one
part by logic alone. Neither the names of brands nor their sizes need be right: wrong ones only make
parts of unequal size.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from octogen_dagster.api.facets import Facet, FacetName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from octogen_dagster.api.search_request import SearchRequest

MAX_BRANDS = 500
"""The most brands in a request, which is also the most keys that `catalogs` may have.

The service publishes no limit for the values of a facet. It may refuse so many, before anything is
read of the parts.
"""

MAX_SHARE = 0.75
"""The largest share of a catalog that one part may have if the split is to save enough time."""


@dataclass(frozen=True)
class CatalogPart:
    """The part of a catalog that one of several walks reads.

    Attributes:
        number: The number of the part, from 1.
        parts: The number of parts of the catalog.
        brands: The brands; none for the remainder, which has the products without a brand too.
        excluded: The brands of other parts, whose products do not belong to this one.
        products: The number of products to expect; 0 if it is not known.
    """

    number: int
    parts: int
    brands: Sequence[str]
    excluded: Sequence[str]
    products: int = field(default=0, compare=False)

    def narrowed(self, request: SearchRequest) -> SearchRequest:
        """Return a request for a whole catalog as one for this part."""
        return request.model_copy(
            update={"facets": _facets(self.brands), "exclude_facets": _facets(self.excluded)}
        )


def partition(brands: Mapping[str, int], products: int, walks: int) -> list[CatalogPart]:
    """Split a catalog into parts of about equal size.

    Args:
        brands: The number of products by brand.
        products: The number of products of the catalog.
        walks: The largest number of parts, with the remainder.

    Returns:
        The parts, the largest one first; none if one of them would have most of the catalog.
    """
    named = Counter(_by_spelling(brands)).most_common(MAX_BRANDS)
    in_sets = sum(size for _, size in named)
    remainder = max(0, products - in_sets)
    longest = max([remainder, *(size for _, size in named[:1])])
    if not in_sets or walks < 2 or longest > MAX_SHARE * (in_sets + remainder):
        return []
    # Sets below half of the longest part would cost pages and save no time.
    count = min(walks - 1, len(named), math.ceil(2 * in_sets / longest))
    sets = [(0, number) for number in range(count)]
    members: list[list[str]] = [[] for _ in range(count)]
    for brand, size in named:
        filled, number = sets[0]
        members[number].append(brand)
        heapq.heapreplace(sets, (filled + size, number))
    sets.sort(reverse=True)
    parts = parts_of([members[number] for _, number in sets])
    sizes = [*(size for size, _ in sets), remainder]
    sized = [replace(part, products=size) for part, size in zip(parts, sizes, strict=True)]
    sized.sort(key=lambda part: -part.products)
    return sized if sized[0].products <= MAX_SHARE * sum(sizes) else []


def parts_of(sets: Sequence[Sequence[str]]) -> list[CatalogPart]:
    """Return the parts that belong to sets of brands, the remainder last."""
    count = len(sets) + 1
    parts = []
    before: list[str] = []
    for number, brands in enumerate([*sets, ()], start=1):
        parts.append(CatalogPart(number, count, tuple(brands), tuple(before)))
        before += brands
    return parts


def _facets(brands: Sequence[str]) -> list[Facet]:
    return [Facet(name=FacetName.BRAND_NAME, values=list(brands))] if brands else []


def _by_spelling(brands: Mapping[str, int]) -> dict[str, int]:
    """Add up the sizes of brands that differ in case only, under the most frequent spelling."""
    spellings: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, size in brands.items():
        if size > 0 and (brand := name.strip()):
            spellings[brand.casefold()].append((size, brand))
    return {max(group)[1]: sum(size for size, _ in group) for group in spellings.values()}
