"""Products and catalogs, computed on demand.

A product depends only on the seed, the catalog key, the index and the day. Nothing is stored, so a
catalog with a million products takes no more memory than a catalog with ten. The index is also the
product's position in its catalog's quality order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, TypeVar

from octogen_dagster.sandbox.words import (
    COLORS,
    PRICES_OF_A_DOLLAR,
    PRODUCT_LINES,
    SHOPS,
    STYLES,
    VERTICALS,
    Brand,
    Color,
    Kind,
    Shop,
    Vertical,
    slug_of,
)

CatalogChoice: TypeAlias = int | Sequence[str] | Mapping[str, int]
"""A number of built-in catalogs, a list of catalog keys, or a mapping from keys to product counts.
"""

FIRST_INDEX_RUN = datetime(2026, 1, 15, 6, 0, tzinfo=UTC)
_TIME_BETWEEN_INDEX_RUNS = timedelta(days=1)
_PRODUCTS_FOR_A_NEW_ONE = 50
_64_BITS = (1 << 64) - 1
_GENDERS = ("female", "male", "unisex")
_AGES = ("adult", "adult", "adult", "kids")
_PRICE_MOVES = (0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25)

# Each trait has a number, so that traits are drawn independently. A kind's attributes take the
# numbers from `_ATTRIBUTES` on.
_KIND, _BRAND, _OTHER_SPELLING, _SPELLING, _LINE, _ADJECTIVE, _COLOR, _SECOND_COLOR = range(8)
_GENDER, _AGE, _PRICE, _CENTS, _REDUCED, _DISCOUNT, _RATING, _REVIEWS, _UPDATED = range(8, 17)
_STOCK, _IMAGES, _STYLE, _NO_TITLE, _NO_BRAND, _NO_PRICE, _NO_RATING, _NO_UPDATE = range(17, 25)
_NO_STOCK, _NO_IMAGES, _NO_GENDER, _UUID, _NO_CURRENCY, _OTHER_CURRENCY = range(25, 31)
_WHICH_CURRENCY, _ATTRIBUTES = range(31, 33)
_BITS_OF_A_TRAIT = 10

_T = TypeVar("_T")


def mix(value: int) -> int:
    """Scramble 64 bits with splitmix64.

    This is a bijection, and the result is the same in every process.
    """
    value = (value + 0x9E3779B97F4A7C15) & _64_BITS
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return value ^ (value >> 31)


@dataclass(frozen=True)
class Catalog:
    """A merchant's products.

    `removed` contains the indexes of removed products. `prices` contains the prices that were set
    with `set_price`, by index. `day` is the number of days since the products were created.
    """

    shop: Shop
    assortment: tuple[tuple[Vertical, Kind], ...]
    salt: int
    size: int
    last_indexed_at: datetime | None
    removed: frozenset[int] = frozenset()
    day: int = 0
    prices: Mapping[int, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.shop.key

    @property
    def source_base_url(self) -> str | None:
        return f"https://www.{self.shop.domain}" if self.shop.has_source_url else None

    @property
    def product_count(self) -> int:
        return self.size - len(self.removed)

    def contains(self, index: int) -> bool:
        return index < self.size and index not in self.removed

    def find(self, url: str) -> Product | None:
        """Return the product with exactly this URL, or None."""
        match = re.search(r"-(0|[1-9]\d{0,17})$", url)
        if match is None or not self.contains(int(match[1])):
            return None
        product = Product(self, int(match[1]))
        return product if product.url == url else None

    def next_day(self) -> Catalog:
        """Return the catalog one day later. Products whose price was set are never removed."""
        day = self.day + 1
        turnover = -(-self.size // _PRODUCTS_FOR_A_NEW_ONE)
        gone = {mix(self.salt ^ (day << 32) + number) % self.size for number in range(turnover)}
        return replace(
            self.indexed_again(),
            day=day,
            size=self.size + turnover,
            removed=self.removed | (gone - self.prices.keys()),
        )

    def indexed_again(self) -> Catalog:
        last = self.last_indexed_at
        following = FIRST_INDEX_RUN if last is None else last + _TIME_BETWEEN_INDEX_RUNS
        return replace(self, last_indexed_at=following)


def make_catalog(key: str, product_count: int, seed: int) -> Catalog:
    """Create the catalog of a built-in shop. For any other key, invent a shop.

    A key such as `northpeak.outlet` is a second catalog on the site of a built-in shop.
    """
    if not key:
        raise ValueError("a catalog key needs at least one character")
    if product_count < 0:
        raise ValueError(f"catalog {key!r}: products must be 0 or more, not {product_count}")
    shops = {shop.key: shop for shop in SHOPS}
    first, _, name = key.rpartition(".")
    if key in shops:
        shop = shops[key]
    elif first in shops:
        display_name, path = f"{shops[first].display_name} {name}", f"/{slug_of(name)}"
        shop = replace(shops[first], key=key, display_name=display_name, path=path)
    else:
        shop = _invented_shop(key)
    verticals = [VERTICALS[each] for each in shop.verticals]
    return Catalog(
        shop=shop,
        assortment=tuple((vertical, kind) for vertical in verticals for kind in vertical.kinds),
        salt=int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big"),
        size=product_count,
        last_indexed_at=FIRST_INDEX_RUN if product_count else None,
    )


def _invented_shop(key: str) -> Shop:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    vertical = list(VERTICALS)[number % len(VERTICALS)]
    return Shop(key, key, f"{slug_of(key)}-{number:08x}.example", (vertical,))


def builtin_catalog_keys(count: int) -> list[str]:
    """Return the keys of the first `count` built-in catalogs."""
    if not 0 <= count <= len(SHOPS):
        raise ValueError(f"catalogs must be 0 to {len(SHOPS)}, or a list of keys; not {count}")
    return [shop.key for shop in SHOPS[:count]]


class Catalogs:
    """The catalogs that the organization can search.

    The server reads the catalogs while other threads change them, so a change replaces the entire
    mapping with one assignment.
    """

    def __init__(self, choice: CatalogChoice, products: int, seed: int) -> None:
        self._products = products
        self._seed = seed
        keys = builtin_catalog_keys(choice) if isinstance(choice, int) else choice
        counts = keys if isinstance(keys, Mapping) else dict.fromkeys(keys, products)
        self._by_key = {key: make_catalog(key, count, seed) for key, count in counts.items()}
        self.day_began_at = datetime.now(UTC)

    def all(self) -> list[Catalog]:
        return list(self._by_key.values())

    def known(self, keys: Sequence[str] | None) -> list[Catalog]:
        """Return the existing catalogs with these keys, without duplicates.

        None means all catalogs.
        """
        by_key = self._by_key
        wanted = by_key if keys is None else dict.fromkeys(keys)
        return [by_key[key] for key in wanted if key in by_key]

    def find(self, url: str) -> Product | None:
        """Return the product with exactly this URL in any catalog, or None."""
        found = (catalog.find(url) for catalog in self.all())
        return next((product for product in found if product is not None), None)

    def grant(self, key: str, products: int | None) -> None:
        count = self._products if products is None else products
        self._replace(make_catalog(key, count, self._seed))

    def revoke(self, key: str) -> None:
        revoked = self._get(key)
        self._by_key = {key: each for key, each in self._by_key.items() if each is not revoked}

    def touch(self, key: str) -> None:
        self._replace(self._get(key).indexed_again())

    def next_day(self) -> None:
        self._by_key = {key: catalog.next_day() for key, catalog in self._by_key.items()}
        self.day_began_at = datetime.now(UTC)

    def set_price(self, url: str, price: float) -> None:
        product = self.find(url)
        if product is None:
            raise LookupError(f"no catalog has a product {url!r}: use a URL from a search")
        catalog = product.catalog
        self._replace(replace(catalog, prices={**catalog.prices, product.index: price}))

    def _replace(self, catalog: Catalog) -> None:
        self._by_key = self._by_key | {catalog.key: catalog}

    def _get(self, key: str) -> Catalog:
        if key not in self._by_key:
            granted = ", ".join(self._by_key) or "none"
            raise LookupError(f"catalog {key!r} is not granted: grant it first. Granted: {granted}")
        return self._by_key[key]


class Product:
    """A product. Its traits are computed when they are read."""

    __slots__ = ("bits", "catalog", "index", "kind", "vertical")

    def __init__(self, catalog: Catalog, index: int) -> None:
        self.catalog = catalog
        self.index = index
        self.bits = mix(catalog.salt + index)
        self.vertical, self.kind = self.pick(_KIND, catalog.assortment)

    def draw(self, trait: int, options: int) -> int:
        """Return a number in [0, options) that depends only on this product and `trait`."""
        return mix(self.bits ^ trait) * options >> 64

    def one_in(self, trait: int, odds: int) -> bool:
        """Return True for one in `odds` products."""
        return self.draw(trait, odds) == 0

    def pick(self, trait: int, options: Sequence[_T]) -> _T:
        """Choose one of `options`, depending only on this product and `trait`."""
        return options[self.draw(trait, len(options))]

    def days_of_change(self, trait: int, odds: int) -> list[int]:
        """Return the days on which a trait changes. The first day is 1.

        Each day, the trait changes for one in `odds` products.
        """
        days = range(1, self.catalog.day + 1)
        return [day for day in days if self.one_in(day << _BITS_OF_A_TRAIT | trait, odds)]

    @property
    def uuid(self) -> str:
        """The ID, unique across all catalogs."""
        low = mix(self.bits ^ _UUID) ^ self.catalog.salt
        high = f"{self.bits:016x}"
        return (
            f"{high[:8]}-{high[8:12]}-4{high[13:]}"
            f"-{0x8000 | low >> 50:04x}-{low & 0xFFFFFFFFFFFF:012x}"
        )

    @property
    def brand(self) -> Brand | None:
        """The canonical brand, or None for one in sixty products."""
        return None if self.one_in(_NO_BRAND, 60) else self.pick(_BRAND, self.vertical.brands)

    @property
    def raw_brand_name(self) -> str | None:
        """The brand in the merchant's spelling, as shown in search results."""
        brand = self.brand
        if brand is None:
            return None
        if brand.spellings and self.one_in(_OTHER_SPELLING, 6):
            return self.pick(_SPELLING, brand.spellings)
        return brand.name

    @property
    def color(self) -> Color | None:
        """The main color; None if the kind has no colors."""
        return self.pick(_COLOR, COLORS) if self.kind.colored else None

    @property
    def colors(self) -> tuple[Color, ...]:
        """All available colors, the main color first."""
        first = self.color
        if first is None:
            return ()
        second = self.pick(_SECOND_COLOR, COLORS)
        return (first,) if second is first else (first, second)

    @property
    def line(self) -> str:
        """The product line, the start of the title."""
        return self.pick(_LINE, PRODUCT_LINES)

    @property
    def adjective(self) -> str:
        return self.pick(_ADJECTIVE, self.vertical.adjectives)

    @property
    def title(self) -> str | None:
        """The title; None for one in 250 products."""
        if self.one_in(_NO_TITLE, 250):
            return None
        return f"{self.line} {self.adjective} {self.kind.noun}"

    @property
    def url(self) -> str:
        """The product page URL, which lookups use."""
        handle = slug_of(f"{self.line} {self.kind.noun}")
        shop = self.catalog.shop
        return f"https://www.{shop.domain}{shop.path}/products/{handle}-{self.index}"

    @property
    def attributes(self) -> dict[str, str]:
        """The kind's attributes: name to value."""
        return {
            name: self.pick(_ATTRIBUTES + number, values)
            for number, (name, values) in enumerate(self.kind.attributes.items())
        }

    @property
    def gender(self) -> str | None:
        """The target gender; None if unknown or if the kind has none."""
        if not self.kind.gendered or self.one_in(_NO_GENDER, 12):
            return None
        return self.pick(_GENDER, _GENDERS)

    @property
    def age_groups(self) -> tuple[str, ...]:
        """The target age group; empty if the kind is for everybody."""
        return (self.pick(_AGE, _AGES),) if self.kind.gendered else ()

    @property
    def currency(self) -> str | None:
        """The price currency; None (unknown) for one in thirty products."""
        return None if self.one_in(_NO_CURRENCY, 30) else self._price_currency

    @property
    def _price_currency(self) -> str:
        if self.one_in(_OTHER_CURRENCY, 25):
            return self.pick(_WHICH_CURRENCY, tuple(PRICES_OF_A_DOLLAR))
        return self.catalog.shop.currency

    @property
    def current_price(self) -> float | None:
        """The price in `currency`; None for one in forty products."""
        if self.index in self.catalog.prices:
            return self.catalog.prices[self.index]
        if self.one_in(_NO_PRICE, 40):
            return None
        spread = 0.4 + self.draw(_PRICE, 1600) / 1000
        currency = self._price_currency
        amount = self.kind.price_usd * spread * PRICES_OF_A_DOLLAR[currency]
        if days := self.days_of_change(_PRICE, 20):
            amount *= self.pick(days[-1] << _BITS_OF_A_TRAIT | _CENTS, _PRICE_MOVES)
        if currency == "JPY":
            return float(max(100, round(amount, -2)))
        return int(amount) + self.pick(_CENTS, (0, 50, 95, 99)) / 100

    @property
    def original_price(self) -> float | None:
        """The price before the discount; None without a discount."""
        price = self.current_price
        if price is None or not self.one_in(_REDUCED, 3):
            return None
        percent_off = self.pick(_DISCOUNT, (10, 20, 25, 30, 50))
        return round(price * 100 / (100 - percent_off), 2)

    @property
    def rating(self) -> tuple[float | None, int] | None:
        """The average rating from 1 to 5 (None without votes) and the number of votes."""
        if self.one_in(_NO_RATING, 5):
            return None
        votes = self.draw(_REVIEWS, 400)
        return (None if votes == 0 else (20 + self.draw(_RATING, 31)) / 10), votes

    @property
    def updated_at(self) -> datetime | None:
        """When the product last changed (UTC); None for one in 100 products."""
        if self.one_in(_NO_UPDATE, 100):
            return None
        return FIRST_INDEX_RUN - timedelta(seconds=self.draw(_UPDATED, 90 * 24 * 3600))

    @property
    def in_stock(self) -> bool | None:
        """Whether the product is in stock; None for one in thirty products."""
        if self.one_in(_NO_STOCK, 30):
            return None
        changes = len(self.days_of_change(_STOCK, 40))
        return self.one_in(_STOCK, 8) == (changes % 2 == 1)

    @property
    def image_count(self) -> int:
        """Number of images, 0 to 4."""
        return 0 if self.one_in(_NO_IMAGES, 50) else 1 + self.draw(_IMAGES, 4)

    @property
    def style(self) -> str:
        return self.pick(_STYLE, STYLES)
