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

from octogen_dagster.api.search import Facet, FacetName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from octogen_dagster.api.search import SearchRequest

MAX_BRANDS = 500
"""The most brands in a request, which is also the most keys that `catalogs` may have.

The service publishes no limit for the values of a facet. It may refuse so many, before anything is
read of the parts.
"""

REFUSED_STATUSES = {400, 413, 422}
"""The statuses by which a service may refuse so many brands."""

MAX_SHARE = 0.75
"""The largest share of its time that a read may take after a split, or the split does not pay."""


@dataclass(frozen=True)
class CatalogPart:
    """The part of a catalog that one of several walks reads."""

    number: int  # from 1
    parts: int  # of the catalog
    brands: Sequence[str]  # none for the remainder, which has the products without a brand too
    excluded: Sequence[str]  # brands of other parts, whose products do not belong to this one
    products: int = field(default=0, compare=False)  # to expect; 0 if it is not known

    def narrowed(self, request: SearchRequest) -> SearchRequest:
        """Return a request for a whole catalog as one for this part."""
        return request.model_copy(
            update={"facets": _facets(self.brands), "exclude_facets": _facets(self.excluded)}
        )


def partition(
    brands: Mapping[str, int], products: int, walks: int, threads: int
) -> list[CatalogPart]:
    """Split a catalog into at most so many parts of about equal size, the largest one first.

    `brands` are numbers of products. There are no parts if one would have most of the catalog. The
    threads that read them at once have as many each, if there are enough: or all would wait for
    those that have one more.
    """
    named = Counter(_by_spelling(brands)).most_common(MAX_BRANDS)
    unnamed = max(0, products - sum(size for _, size in named))
    total = unnamed + sum(size for _, size in named)
    longest = max([unnamed, *(size for _, size in named[:1])])
    # Parts below half of the longest one would cost pages and save no time.
    count = min(walks, len(named) + 1, math.ceil(2 * total / longest)) if longest else 0
    if count > threads:
        count -= count % threads
    if count < 2:
        return []
    remainder = (unnamed, 0)  # brands that fall into it need not be named
    sizes = [remainder, *((0, number) for number in range(1, count))]
    heapq.heapify(sizes)
    members: list[list[str]] = [[] for _ in range(count)]
    for brand, size in named:
        filled, number = sizes[0]
        members[number].append(brand)
        heapq.heapreplace(sizes, (filled + size, number))
    sets = [number for size, number in sorted(sizes, reverse=True) if number and size]
    by_number = {number: size for size, number in sizes}
    parts = [
        replace(part, products=by_number[number])
        for part, number in zip(
            parts_of([members[number] for number in sets]), [*sets, 0], strict=True
        )
    ]
    parts.sort(key=lambda part: -part.products)
    return parts if parts[0].products <= MAX_SHARE * total else []


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
