"""Splits a catalog into parts by brand. No I/O.

Each part includes some brands and excludes the brands in earlier parts. The remainder excludes all
named brands and includes products without a brand. Each product is therefore in exactly one part,
even if the brand names or sizes are wrong. Wrong sizes only make the parts uneven.
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
"""The maximum number of brands in one request, equal to the service's limit for `catalogs`.

The service documents no limit for facet values. If it rejects this many brands, the first request
fails before any part is read.
"""

REFUSED_STATUSES = {400, 413, 422}
"""HTTP status codes that the service might return for a request with too many brands."""

MAX_SHARE = 0.75
"""The maximum read time of a split catalog, as a share of the time for a single pass.

A catalog is not split if reading its parts would take longer.
"""


@dataclass(frozen=True)
class CatalogPart:
    """A part of a catalog, selected by brand, that is read separately."""

    number: int  # from 1
    parts: int  # total number of parts
    brands: Sequence[str]  # empty for the remainder
    excluded: Sequence[str]  # brands in other parts
    products: int = field(default=0, compare=False)  # expected number; 0 if unknown

    def narrowed(self, request: SearchRequest) -> SearchRequest:
        """Restrict a request for the whole catalog to this part."""
        return request.model_copy(
            update={"facets": _facets(self.brands), "exclude_facets": _facets(self.excluded)}
        )


def partition(
    brands: Mapping[str, int], products: int, max_parts: int, threads: int
) -> list[CatalogPart]:
    """Split a catalog into at most `max_parts` parts of similar size, largest first.

    `brands` contains each brand's number of products. The result is empty if one part would contain
    most of the catalog. If there are more parts than `threads`, their number is a multiple of
    `threads`, so that all threads read the same number of parts.
    """
    named = Counter(_by_spelling(brands)).most_common(MAX_BRANDS)
    unnamed = max(0, products - sum(size for _, size in named))
    total = unnamed + sum(size for _, size in named)
    longest = max([unnamed, *(size for _, size in named[:1])])
    # Parts smaller than half the largest one would cost pages without saving time.
    count = min(max_parts, len(named) + 1, math.ceil(2 * total / longest)) if longest else 0
    if count > threads:
        count -= count % threads
    if count < 2:
        return []
    remainder = (unnamed, 0)  # its brands are not listed
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
    """Return one part for each set of brands, then one part for the remaining products."""
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
    """Merge brands that differ only in case, and keep the most frequent spelling."""
    spellings: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, size in brands.items():
        if size > 0 and (brand := name.strip()):
            spellings[brand.casefold()].append((size, brand))
    return {max(group)[1]: sum(size for size, _ in group) for group in spellings.values()}
