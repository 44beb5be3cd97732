"""Catalogs whose products are computed on demand."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from octogen_dagster.sandbox.data.product import FIRST_INDEX_RUN, Product, mix
from octogen_dagster.sandbox.data.shops import SHOPS, Shop
from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.data.verticals import VERTICALS, Kind, Vertical

_TIME_BETWEEN_INDEX_RUNS = timedelta(days=1)
_PRODUCTS_FOR_A_NEW_ONE = 50
_SHOPS_BY_KEY = {shop.key: shop for shop in SHOPS}


@dataclass(frozen=True)
class Catalog:
    """The products of a merchant.

    Attributes:
        key: The catalog key.
        display_name: The name of the merchant.
        domain: The domain of the merchant's site, without `www`.
        source_base_url: The URL of the merchant's site; None if it is unknown.
        path: The path on the site below which the products are.
        currency: The currency of most prices.
        assortment: The kinds of product it sells, each with its line of business.
        salt: A hash of the seed and the key, of 64 bits.
        size: The number of products that the shop has.
        last_indexed_at: The time of the last index run, in UTC; None if there was none.
        removed: The indexes of the products that are not in the catalog any more.
        day: The number of days that passed since its products were made.
        prices: Index to price, for products whose price was set.
    """

    key: str
    display_name: str
    domain: str
    path: str
    source_base_url: str | None
    currency: str
    assortment: tuple[tuple[Vertical, Kind], ...]
    salt: int
    size: int
    last_indexed_at: datetime | None
    removed: frozenset[int] = frozenset()
    day: int = 0
    prices: Mapping[int, float] = field(default_factory=dict)

    @property
    def product_count(self) -> int:
        """The number of products in the catalog."""
        return self.size - len(self.removed)

    def product(self, index: int) -> Product:
        """Return the product of the shop at `index`, which may have been removed."""
        return Product(self, index, mix(self.salt + index))

    def contains(self, index: int) -> bool:
        """Return True if the product at `index` is in the catalog."""
        return index < self.size and index not in self.removed

    def find(self, url: str) -> Product | None:
        """Return the product of the catalog with exactly this URL; None if there is none."""
        product = self.find_in_shop(url)
        return product if product is not None and self.contains(product.index) else None

    def find_in_shop(self, url: str) -> Product | None:
        """Return the product of the shop with exactly this URL, in the catalog or not."""
        match = re.search(r"(?:-|\?variant=)(0|[1-9]\d{0,17})$", url)
        if match is None:
            return None
        product = self.product(int(match[1]))
        return product if product.url == url else None

    def without(self, index: int) -> "Catalog":
        """Return the same catalog without the product at `index`."""
        return replace(self, removed=self.removed | {index})

    def with_price(self, index: int, price: float) -> "Catalog":
        """Return the same catalog with another price of the product at `index`."""
        return replace(self, prices={**self.prices, index: price})

    def next_day(self) -> "Catalog":
        """Return the catalog a day later.

        One product in fifty is new, about as many are gone, and of others the price or the
        availability changed. A product whose price was set stays as it is. The catalog was indexed
        again.
        """
        day = self.day + 1
        turnover = -(-self.size // _PRODUCTS_FOR_A_NEW_ONE)
        gone = {mix(self.salt ^ (day << 32) + number) % self.size for number in range(turnover)}
        return replace(
            self.indexed_again(),
            day=day,
            size=self.size + turnover,
            removed=self.removed | (gone - self.prices.keys()),
        )

    def indexed_again(self) -> "Catalog":
        """Return the same catalog after one more index run."""
        last = self.last_indexed_at
        return replace(
            self,
            last_indexed_at=FIRST_INDEX_RUN if last is None else last + _TIME_BETWEEN_INDEX_RUNS,
        )


def make_catalog(key: str, product_count: int, seed: int) -> Catalog:
    """Make a catalog: that of a built-in shop, or of an invented one for any other key.

    A key such as `northpeak.outlet` is a second catalog on the site of a built-in shop.

    Raises:
        ValueError: `key` is empty or `product_count` is negative.
    """
    if not key:
        raise ValueError("a catalog key needs at least one character")
    if product_count < 0:
        raise ValueError(f"catalog {key!r}: products must be 0 or more, not {product_count}")
    salt = int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big")
    shop = _SHOPS_BY_KEY.get(key) or _second_catalog(key) or _invented_shop(key)
    verticals = [VERTICALS[name] for name in shop.verticals]
    return Catalog(
        key=key,
        display_name=shop.display_name,
        domain=shop.domain,
        path=shop.path,
        source_base_url=f"https://www.{shop.domain}" if shop.has_source_url else None,
        currency=shop.currency,
        assortment=tuple((vertical, kind) for vertical in verticals for kind in vertical.kinds),
        salt=salt,
        size=product_count,
        last_indexed_at=FIRST_INDEX_RUN if product_count else None,
    )


def _second_catalog(key: str) -> Shop | None:
    """Return the shop `northpeak.outlet`: another catalog on the site of `northpeak`."""
    first, _, name = key.rpartition(".")
    shop = _SHOPS_BY_KEY.get(first)
    if shop is None:
        return None
    path = f"/{slug_of(name)}"
    return replace(shop, key=key, display_name=f"{shop.display_name} {name}", path=path)


def _invented_shop(key: str) -> Shop:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    vertical = list(VERTICALS)[number % len(VERTICALS)]
    return Shop(key, key, f"{slug_of(key)}-{number:08x}.example", (vertical,))


def builtin_catalog_keys(count: int) -> list[str]:
    """Return the keys of the first `count` built-in catalogs.

    Raises:
        ValueError: There are fewer, or `count` is negative.
    """
    if not 0 <= count <= len(SHOPS):
        raise ValueError(f"catalogs must be 0 to {len(SHOPS)}, or a list of keys; not {count}")
    return [shop.key for shop in SHOPS[:count]]
