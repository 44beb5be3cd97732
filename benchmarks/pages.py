"""The pages of one catalog as JSON, made before anything is measured."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.corpora import CATALOG_KEY, SHAPES, Item, Shape
from benchmarks.source import PAGE_SIZE, Generation

_MAX_PRODUCTS = 100_000
"""A larger catalog repeats so many products, with other uuids."""

_UUID = re.compile(rb'"uuid": ?"')


@dataclass(frozen=True)
class Filters:
    """The brands that a search selects and leaves out.

    Attributes:
        brands: The names, each in lower case; None for all products.
        excluded_brands: The names that are left out.
    """

    brands: frozenset[str] | None = None
    excluded_brands: frozenset[str] = frozenset()

    def match(self, brand: str | None) -> bool:
        """True if products of a brand are selected; None is a product without one."""
        name = None if brand is None else brand.lower()
        return name not in self.excluded_brands and (self.brands is None or name in self.brands)


class Catalog:
    """A catalog whose products all have uuids of their own.

    Args:
        key: The catalog key.
        number: The number of the catalog on its server, which its uuids begin with.
        products: The number of products.
        shape: The name of the shape of its pages.
        generation: The contract.
        items: The items of that shape, which several catalogs share.

    Attributes:
        whole: The walk through all products.
    """

    def __init__(
        self,
        key: str,
        number: int,
        products: int,
        shape: str,
        generation: Generation,
        items: Sequence[Item],
    ) -> None:
        self.key = key
        self.products = products
        self._shape = SHAPES[shape]
        self._generation = generation
        selected = items[:products]
        self._brands = [(item.get("brand") or {}).get("name") for item in selected]
        prefix, own_key = f'"uuid":"{number:04x}'.encode(), key.encode()
        self._items = [
            self._shape.encode(item)
            .replace(CATALOG_KEY.encode(), own_key, 1)
            .replace(b'"uuid":"0000', prefix, 1)
            .replace(b'"uuid": "0000', prefix.replace(b":", b": "), 1)
            for item in selected
        ]
        self._walks: dict[Filters, Walk] = {}
        self.whole = self.walk(Filters())

    def walk(self, filters: Filters) -> Walk:
        """Return the walk through the products that filters select."""
        if filters not in self._walks:
            items = [
                item
                for item, brand in zip(self._items, self._brands, strict=True)
                if filters.match(brand)
            ]
            count = self.products if filters == Filters() else len(items)
            self._walks[filters] = Walk(items, count, self._shape, self._generation)
        return self._walks[filters]

    def number_of_products(self, filters: Filters) -> int:
        """Return the number of products that filters select."""
        if filters == Filters():
            return self.products
        return sum(filters.match(brand) for brand in self._brands)

    def top_brands(self, limit: int = 500) -> list[tuple[str, int]]:
        """Return the brands with the most products, with their numbers of products."""
        counts: dict[str, int] = {}
        for brand in self._brands:
            if brand is not None:
                counts[brand] = counts.get(brand, 0) + 1
        return sorted(counts.items(), key=lambda entry: -entry[1])[:limit]


class Walk:
    """The JSON of all pages of one search.

    Args:
        items: The JSON of the items.
        products: The number of products; beyond the items they are repeated with other uuids.
        shape: The shape of the pages.
        generation: The contract.

    Raises:
        ValueError: Repeated items do not fill pages.
    """

    def __init__(
        self, items: Sequence[bytes], products: int, shape: Shape, generation: Generation
    ) -> None:
        if products > len(items) and len(items) % PAGE_SIZE:
            raise ValueError(f"{len(items)} items do not fill pages of {PAGE_SIZE}")
        self.count = max(1, -(-products // PAGE_SIZE))
        self._salt = hashlib.sha256(b"".join(items[:1])).hexdigest()[:12]
        self._shape = shape
        self._generation = generation
        separator = b",\n" if shape.indent else b","
        self._pages = [
            bytearray(b'{"items":[' + separator.join(items[begin : begin + PAGE_SIZE]) + b"]")
            for begin in range(0, min(len(items), products) or 1, PAGE_SIZE)
        ]
        self._uuids = [[match.end() for match in _UUID.finditer(page)] for page in self._pages]
        self._laps = [0] * len(self._pages)
        self._ends = [self._end(number) for number in range(self.count)]
        self._compressed = self._compress() if shape.compressed else ()

    def _compress(self) -> Sequence[bytes]:
        """Return all pages as gzip, which cannot be repeated with other uuids.

        Raises:
            ValueError: There are more pages than distinct ones.
        """
        if self.count > len(self._pages):
            raise ValueError(f"compressed pages of at most {_MAX_PRODUCTS} products only")
        return [
            gzip.compress(page + end, 6) for page, end in zip(self._pages, self._ends, strict=True)
        ]

    def _end(self, number: int) -> bytes:
        """Return the JSON after the items of a page."""
        end: dict[str, object] = {}
        if number + 1 < self.count:
            end["nextCursor"] = self._cursor(number + 1)
        elif self._generation == "seed":
            end["nextCursor"] = None
        if self._generation == "current":
            end |= {"requestId": self.request_id(number), "effectiveQuery": EFFECTIVE_QUERY}
        encoded = self._shape.encode(end)[1:] if end else b"}"
        return (b"," if end else b"") + encoded

    def _cursor(self, number: int) -> str:
        return base64.urlsafe_b64encode(f"{self._salt}:page:{number}".encode()).decode()

    def request_id(self, number: int) -> str:
        """Return the id of the request for a page, which is the page's own."""
        return f"{self._salt}-{number:08x}-4b1d-9c35-6f0a2b7c8d9e"

    def number(self, cursor: str | None) -> int:
        """Return the page of a cursor, or the first page for one of another search."""
        try:
            salt, _, number = base64.urlsafe_b64decode(cursor or "").decode().split(":")
        except ValueError:
            return 0
        return int(number) if salt == self._salt else 0

    def body(self, number: int, *, gzip_accepted: bool) -> tuple[str, Sequence[bytes | bytearray]]:
        """Return the encoding of a page, and the page in parts, valid until the next call."""
        if self._compressed and gzip_accepted:
            return "gzip", [self._compressed[number]]
        lap, place = divmod(number, len(self._pages))
        page = self._pages[place]
        if self._laps[place] != lap:
            self._laps[place] = lap
            digits = b"%04x" % lap
            for at in self._uuids[place]:
                page[at + 4 : at + 8] = digits
        return "", [page, self._ends[number]]

    @property
    def mean_bytes(self) -> int:
        """The mean size of a page before compression, in bytes."""
        pages, ends = self._pages, self._ends
        return sum(map(len, pages)) // len(pages) + sum(map(len, ends)) // len(ends)


EFFECTIVE_QUERY = {
    "text": "",
    "understood": False,
    "catalogs": None,
    "facets": [],
    "excludeFacets": [],
    "priceMin": None,
    "priceMax": None,
    "brandQualityMin": None,
    "brandQualityMax": None,
    "similarToBrands": None,
    "relaxation": None,
}


def make_catalogs(
    catalogs: Mapping[str, tuple[int, str]], generation: Generation
) -> dict[str, Catalog]:
    """Make catalogs.

    Args:
        catalogs: Catalog key to its number of products and the name of its shape.
        generation: The contract.
    """
    most: dict[str, int] = {}
    for products, shape in catalogs.values():
        most[shape] = max(most.get(shape, 0), min(products, _MAX_PRODUCTS))
    items = {shape: list(SHAPES[shape].items(generation, count)) for shape, count in most.items()}
    return {
        key: Catalog(key, number, products, shape, generation, items[shape])
        for number, (key, (products, shape)) in enumerate(catalogs.items())
    }
