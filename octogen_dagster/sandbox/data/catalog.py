"""Catalogs of products that exist only while somebody looks at them.

A product is a pure function of (seed, catalog key, index): nothing is stored, so a
catalog of a million products takes no more memory than a catalog of ten. The index is also
the place of the product in the catalog's quality order. What a product looks like on
the wire is in `views`; which products a search finds is in `search`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import TypeVar

from octogen_dagster.sandbox.data.shops import SHOPS, Shop
from octogen_dagster.sandbox.data.verticals import VERTICALS, Brand, Kind, Vertical
from octogen_dagster.sandbox.data.vocabulary import COLORS, PRODUCT_LINES, STYLES, Color

_FIRST_INDEX_RUN = datetime(2026, 1, 15, 6, 0, tzinfo=timezone.utc)
_TIME_BETWEEN_INDEX_RUNS = timedelta(days=1)
_64_BITS = (1 << 64) - 1
_GENDERS = ("female", "male", "unisex")
_AGES = ("adult", "adult", "adult", "kids")
_KIDS_AGES = ("infant", "toddler", "kids")
_SHOPS_BY_KEY = {shop.key: shop for shop in SHOPS}

(
    _KIND,
    _BRAND,
    _OTHER_SPELLING,
    _SPELLING,
    _LINE,
    _ADJECTIVE,
    _COLOR,
    _SECOND_COLOR,
    _GENDER,
    _AGE,
    _PRICE,
    _CENTS,
    _REDUCED,
    _DISCOUNT,
    _RATING,
    _REVIEWS,
    _UPDATED,
    _STOCK,
    _IMAGES,
    _STYLE,
    _NO_TITLE,
    _NO_BRAND,
    _NO_PRICE,
    _NO_RATING,
    _NO_UPDATE,
    _NO_STOCK,
    _NO_IMAGES,
    _NO_GENDER,
    _UUID,
    _ATTRIBUTES,
) = range(30)
"""One number per trait, so that every trait is drawn independently of the others.

`_ATTRIBUTES` is last: the attributes of a kind take the numbers from there on.
"""

_T = TypeVar("_T")


def _mix(value: int) -> int:
    """Scramble 64 bits (splitmix64): a bijection, the same in every process."""
    value = (value + 0x9E3779B97F4A7C15) & _64_BITS
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return value ^ (value >> 31)


def words_of(text: str) -> frozenset[str]:
    """The words of `text` without case and accents: what a keyword is compared with."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return frozenset(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


@cache
def slug_of(text: str) -> str:
    """`text` as a piece of a URL, in ASCII."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "item"


class Product:
    """One product of a catalog. Every trait is computed when it is asked for."""

    __slots__ = ("_bits", "catalog", "index")

    def __init__(self, catalog: "Catalog", index: int, bits: int) -> None:
        self.catalog = catalog
        self.index = index
        self._bits = bits

    def draw(self, trait: int, options: int) -> int:
        """A number in [0, options) that depends on this product and `trait` only."""
        return _mix(self._bits ^ trait) * options >> 64

    def one_in(self, trait: int, odds: int) -> bool:
        """True for one product in `odds`."""
        return self.draw(trait, odds) == 0

    def pick(self, trait: int, options: Sequence[_T]) -> _T:
        """One of `options`."""
        return options[self.draw(trait, len(options))]

    @property
    def uuid(self) -> str:
        """Unique across all catalogs."""
        low = _mix(self._bits ^ _UUID) ^ self.catalog.salt
        high = f"{self._bits:016x}"
        return (
            f"{high[:8]}-{high[8:12]}-4{high[13:]}"
            f"-{0x8000 | low >> 50:04x}-{low & 0xFFFFFFFFFFFF:012x}"
        )

    @property
    def kind(self) -> Kind:
        return self.pick(_KIND, self.catalog.assortment)[1]

    @property
    def vertical(self) -> Vertical:
        return self.pick(_KIND, self.catalog.assortment)[0]

    @property
    def brand(self) -> Brand | None:
        """The canonical brand; None for the few products that have none."""
        return None if self.one_in(_NO_BRAND, 60) else self.pick(_BRAND, self.vertical.brands)

    @property
    def raw_brand_name(self) -> str | None:
        """The brand as the merchant spells it, which is what an item shows."""
        brand = self.brand
        if brand is None:
            return None
        if brand.spellings and self.one_in(_OTHER_SPELLING, 6):
            return self.pick(_SPELLING, brand.spellings)
        return brand.name

    @property
    def color(self) -> Color | None:
        return self.pick(_COLOR, COLORS) if self.kind.colored else None

    @property
    def colors(self) -> tuple[Color, ...]:
        """All colors it is sold in, its own first."""
        first = self.color
        if first is None:
            return ()
        second = self.pick(_SECOND_COLOR, COLORS)
        return (first,) if second is first else (first, second)

    @property
    def line(self) -> str:
        return self.pick(_LINE, PRODUCT_LINES)

    @property
    def adjective(self) -> str:
        return self.pick(_ADJECTIVE, self.vertical.adjectives)

    @property
    def title(self) -> str | None:
        if self.one_in(_NO_TITLE, 250):
            return None
        return f"{self.line} {self.adjective} {self.kind.noun}"

    @property
    def url(self) -> str:
        handle = slug_of(f"{self.line} {self.kind.noun}")
        return f"https://www.{self.catalog.domain}/products/{handle}-{self.index}"

    @property
    def attributes(self) -> dict[str, str]:
        """Attribute name to value."""
        kind = self.kind
        return {
            name: self.pick(_ATTRIBUTES + number, values)
            for number, (name, values) in enumerate(kind.attributes.items())
        }

    @property
    def gender(self) -> str | None:
        if not self.kind.gendered or self.one_in(_NO_GENDER, 12):
            return None
        return self.pick(_GENDER, _GENDERS)

    @property
    def age_groups(self) -> tuple[str, ...]:
        kind = self.kind
        if not kind.gendered:
            return ()
        return (self.pick(_AGE, _KIDS_AGES if "Baby & Toddler" in kind.category_path else _AGES),)

    @property
    def current_price(self) -> float | None:
        """In the catalog's currency; None for one product in forty."""
        if self.one_in(_NO_PRICE, 40):
            return None
        spread = 0.4 + self.draw(_PRICE, 1600) / 1000
        amount = self.kind.typical_price * spread * self.catalog.price_factor
        if self.catalog.currency == "JPY":
            return float(max(100, round(amount, -2)))
        return int(amount) + self.pick(_CENTS, (0, 50, 95, 99)) / 100

    @property
    def original_price(self) -> float | None:
        """The price before a discount; None when it is not reduced."""
        price = self.current_price
        if price is None or not self.one_in(_REDUCED, 3):
            return None
        percent_off = self.pick(_DISCOUNT, (10, 20, 25, 30, 50))
        return round(price * 100 / (100 - percent_off), 2)

    @property
    def rating(self) -> tuple[float | None, int] | None:
        """Average of 1 to 5 stars and how many votes; the average is None without votes."""
        if self.one_in(_NO_RATING, 5):
            return None
        votes = self.draw(_REVIEWS, 400)
        return (None if votes == 0 else (20 + self.draw(_RATING, 31)) / 10), votes

    @property
    def updated_at(self) -> datetime | None:
        if self.one_in(_NO_UPDATE, 100):
            return None
        return _FIRST_INDEX_RUN - timedelta(seconds=self.draw(_UPDATED, 90 * 24 * 3600))

    @property
    def in_stock(self) -> bool | None:
        return None if self.one_in(_NO_STOCK, 30) else not self.one_in(_STOCK, 8)

    @property
    def image_count(self) -> int:
        return 0 if self.one_in(_NO_IMAGES, 50) else 1 + self.draw(_IMAGES, 4)

    @property
    def style(self) -> str:
        return self.pick(_STYLE, STYLES)


@dataclass(frozen=True)
class Catalog:
    """A merchant's products, `product_count` of them, made on demand.

    Attributes:
        assortment: The kinds of product it sells, each with its line of business.
        salt: 64 bits that stand for (seed, key).
        last_indexed_at: UTC; None for a catalog that was never indexed.
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
        """The product at `index`, which must be in [0, product_count)."""
        return Product(self, index, _mix(self.salt + index))

    def find(self, url: str) -> Product | None:
        """The product with exactly this URL."""
        match = re.search(r"-(0|[1-9]\d*)$", url)
        if match is None or int(match[1]) >= self.product_count:
            return None
        product = self.product(int(match[1]))
        return product if product.url == url else None

    def indexed_again(self) -> "Catalog":
        """The same catalog after one more index run."""
        last = self.last_indexed_at
        return replace(
            self,
            last_indexed_at=_FIRST_INDEX_RUN if last is None else last + _TIME_BETWEEN_INDEX_RUNS,
        )


def make_catalog(key: str, product_count: int, seed: int) -> Catalog:
    """Make the catalog `key`: a built-in shop, or one invented for any other key.

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
        last_indexed_at=_FIRST_INDEX_RUN if product_count else None,
    )


def _invented_shop(key: str) -> Shop:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    vertical = list(VERTICALS)[number % len(VERTICALS)]
    return Shop(key, key, f"{slug_of(key)}-{number:08x}.example", (vertical,))


def builtin_catalog_keys(count: int) -> list[str]:
    """The keys of the first `count` built-in catalogs.

    Raises:
        ValueError: There are fewer, or `count` is negative.
    """
    if not 0 <= count <= len(SHOPS):
        raise ValueError(f"catalogs must be 0 to {len(SHOPS)}, or a list of keys; not {count}")
    return [shop.key for shop in SHOPS[:count]]
