"""Catalogs whose products are computed on demand."""

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from octogen_dagster.sandbox.data.product import FIRST_INDEX_RUN, Product, mix
from octogen_dagster.sandbox.data.shops import SHOPS, Shop
from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.data.verticals import VERTICALS, Kind, Vertical

_TIME_BETWEEN_INDEX_RUNS = timedelta(days=1)
_SHOPS_BY_KEY = {shop.key: shop for shop in SHOPS}


@dataclass(frozen=True)
class Catalog:
    """The products of a merchant.

    Attributes:
        key: The catalog key.
        display_name: The name of the merchant.
        domain: The domain of the merchant's site, without `www`.
        source_base_url: The URL of the merchant's site; None if it is unknown.
        currency: The currency of all prices.
        price_factor: The price of one US dollar in `currency`.
        assortment: The kinds of product it sells, each with its line of business.
        salt: A hash of the seed and the key, of 64 bits.
        product_count: The number of products.
        last_indexed_at: The time of the last index run, in UTC; None if there was none.
    """

    key: str
    display_name: str
    domain: str
    source_base_url: str | None
    currency: str
    price_factor: float
    assortment: tuple[tuple[Vertical, Kind], ...]
    salt: int
    product_count: int
    last_indexed_at: datetime | None

    def product(self, index: int) -> Product:
        """Return the product at `index`, which must be in [0, product_count)."""
        return Product(self, index, mix(self.salt + index))

    def find(self, url: str) -> Product | None:
        """Return the product with exactly this URL; None if there is none."""
        match = re.search(r"-(0|[1-9]\d*)$", url)
        if match is None or int(match[1]) >= self.product_count:
            return None
        product = self.product(int(match[1]))
        return product if product.url == url else None

    def indexed_again(self) -> "Catalog":
        """Return the same catalog after one more index run."""
        last = self.last_indexed_at
        return replace(
            self,
            last_indexed_at=FIRST_INDEX_RUN if last is None else last + _TIME_BETWEEN_INDEX_RUNS,
        )


def make_catalog(key: str, product_count: int, seed: int) -> Catalog:
    """Make a catalog: that of a built-in shop, or of an invented one for any other key.

    Raises:
        ValueError: `key` is empty or `product_count` is negative.
    """
    if not key:
        raise ValueError("a catalog key needs at least one character")
    if product_count < 0:
        raise ValueError(f"catalog {key!r}: products must be 0 or more, not {product_count}")
    salt = int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big")
    shop = _SHOPS_BY_KEY.get(key) or _invented_shop(key)
    verticals = [VERTICALS[name] for name in shop.verticals]
    return Catalog(
        key=key,
        display_name=shop.display_name,
        domain=shop.domain,
        source_base_url=f"https://www.{shop.domain}" if shop.has_source_url else None,
        currency=shop.currency,
        price_factor=shop.price_factor,
        assortment=tuple((vertical, kind) for vertical in verticals for kind in vertical.kinds),
        salt=salt,
        product_count=product_count,
        last_indexed_at=FIRST_INDEX_RUN if product_count else None,
    )


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
