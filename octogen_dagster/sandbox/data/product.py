"""Products that are computed on demand.

A product is a pure function of (seed, catalog key, index, day). Nothing is stored, so a catalog of
a million products takes no more memory than a catalog of ten. The index is also the position of
the product in the quality order of its catalog.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypeVar

from octogen_dagster.sandbox.data.shops import PRICES_OF_A_DOLLAR
from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.data.verticals import Brand, Kind, Vertical
from octogen_dagster.sandbox.data.vocabulary import COLORS, PRODUCT_LINES, STYLES, Color

if TYPE_CHECKING:
    from octogen_dagster.sandbox.data.catalog import Catalog

FIRST_INDEX_RUN = datetime(2026, 1, 15, 6, 0, tzinfo=timezone.utc)
_64_BITS = (1 << 64) - 1
_GENDERS = ("female", "male", "unisex")
_AGES = ("adult", "adult", "adult", "kids")
_KIDS_AGES = ("infant", "toddler", "kids")
_PRICE_MOVES = (0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25)

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
    _VARIANT,
    _NO_CURRENCY,
    _OTHER_CURRENCY,
    _WHICH_CURRENCY,
    _ATTRIBUTES,
) = range(34)
"""One number for each trait, so that each is drawn independently of the others.

`_ATTRIBUTES` is last: the attributes of a kind take the numbers from there on.
"""
_BITS_OF_A_TRAIT = 10

_T = TypeVar("_T")


def mix(value: int) -> int:
    """Scramble 64 bits by splitmix64, a bijection that is the same in every process."""
    value = (value + 0x9E3779B97F4A7C15) & _64_BITS
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return value ^ (value >> 31)


class Product:
    """A product of a catalog. Each trait is computed when it is read."""

    __slots__ = ("_bits", "catalog", "index")

    def __init__(self, catalog: "Catalog", index: int, bits: int) -> None:
        self.catalog = catalog
        self.index = index
        self._bits = bits

    def draw(self, trait: int, options: int) -> int:
        """Return a number in [0, options) that depends only on this product and `trait`."""
        return mix(self._bits ^ trait) * options >> 64

    def one_in(self, trait: int, odds: int) -> bool:
        """Return True for one product in `odds`."""
        return self.draw(trait, odds) == 0

    def days_of_change(self, trait: int, odds: int) -> list[int]:
        """Return the days, from 1, on which a trait changes that one product in `odds` changes."""
        days = range(1, self.catalog.day + 1)
        return [day for day in days if self.one_in(day << _BITS_OF_A_TRAIT | trait, odds)]

    def pick(self, trait: int, options: Sequence[_T]) -> _T:
        """Return one of `options`, which depends only on this product and `trait`."""
        return options[self.draw(trait, len(options))]

    @property
    def uuid(self) -> str:
        """The id, which is unique across all catalogs."""
        low = mix(self._bits ^ _UUID) ^ self.catalog.salt
        high = f"{self._bits:016x}"
        return (
            f"{high[:8]}-{high[8:12]}-4{high[13:]}"
            f"-{0x8000 | low >> 50:04x}-{low & 0xFFFFFFFFFFFF:012x}"
        )

    @property
    def kind(self) -> Kind:
        """The kind of product."""
        return self.pick(_KIND, self.catalog.assortment)[1]

    @property
    def vertical(self) -> Vertical:
        """The line of business that sells it."""
        return self.pick(_KIND, self.catalog.assortment)[0]

    @property
    def brand(self) -> Brand | None:
        """The canonical brand; None for one product in sixty."""
        return None if self.one_in(_NO_BRAND, 60) else self.pick(_BRAND, self.vertical.brands)

    @property
    def raw_brand_name(self) -> str | None:
        """The brand as the merchant spells it, which a list item shows."""
        brand = self.brand
        if brand is None:
            return None
        if brand.spellings and self.one_in(_OTHER_SPELLING, 6):
            return self.pick(_SPELLING, brand.spellings)
        return brand.name

    @property
    def color(self) -> Color | None:
        """The main color; None for a kind without colors."""
        return self.pick(_COLOR, COLORS) if self.kind.colored else None

    @property
    def colors(self) -> tuple[Color, ...]:
        """All colors that it is sold in, the main color first."""
        first = self.color
        if first is None:
            return ()
        second = self.pick(_SECOND_COLOR, COLORS)
        return (first,) if second is first else (first, second)

    @property
    def line(self) -> str:
        """The product line, with which the title begins."""
        return self.pick(_LINE, PRODUCT_LINES)

    @property
    def adjective(self) -> str:
        """The adjective in the title."""
        return self.pick(_ADJECTIVE, self.vertical.adjectives)

    @property
    def title(self) -> str | None:
        """The title; None for one product in 250."""
        if self.one_in(_NO_TITLE, 250):
            return None
        return f"{self.line} {self.adjective} {self.kind.noun}"

    @property
    def url(self) -> str:
        """The URL at the merchant, by which a lookup finds the product."""
        if self.is_variant:
            return f"{self.catalog.product(self.index - 1).url}?variant={self.index}"
        handle = slug_of(f"{self.line} {self.kind.noun}")
        catalog = self.catalog
        return f"https://www.{catalog.domain}{catalog.path}/products/{handle}-{self.index}"

    @property
    def is_variant(self) -> bool:
        """True if the shop shows it on the page of the product before; one in twenty."""
        return self.index % 2 == 1 and self.one_in(_VARIANT, 10)

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes of its kind: name to value."""
        kind = self.kind
        return {
            name: self.pick(_ATTRIBUTES + number, values)
            for number, (name, values) in enumerate(kind.attributes.items())
        }

    @property
    def gender(self) -> str | None:
        """The gender it is made for; None if it is made for none or the gender is unknown."""
        if not self.kind.gendered or self.one_in(_NO_GENDER, 12):
            return None
        return self.pick(_GENDER, _GENDERS)

    @property
    def age_groups(self) -> tuple[str, ...]:
        """The age group it is made for; empty for a kind that is made for everybody."""
        kind = self.kind
        if not kind.gendered:
            return ()
        return (self.pick(_AGE, _KIDS_AGES if "Baby & Toddler" in kind.category_path else _AGES),)

    @property
    def currency(self) -> str | None:
        """The currency of its prices; None if it is unknown, as for one product in thirty."""
        return None if self.one_in(_NO_CURRENCY, 30) else self._price_currency

    @property
    def _price_currency(self) -> str:
        if self.one_in(_OTHER_CURRENCY, 25):
            return self.pick(_WHICH_CURRENCY, tuple(PRICES_OF_A_DOLLAR))
        return self.catalog.currency

    @property
    def current_price(self) -> float | None:
        """The price in its currency; None for one product in forty.

        On each day it moves for one product in twenty.
        """
        if self.index in self.catalog.prices:
            return self.catalog.prices[self.index]
        if self.one_in(_NO_PRICE, 40):
            return None
        spread = 0.4 + self.draw(_PRICE, 1600) / 1000
        currency = self._price_currency
        amount = self.kind.typical_price * spread * PRICES_OF_A_DOLLAR[currency]
        if days := self.days_of_change(_PRICE, 20):
            amount *= self.pick(days[-1] << _BITS_OF_A_TRAIT | _CENTS, _PRICE_MOVES)
        if currency == "JPY":
            return float(max(100, round(amount, -2)))
        return int(amount) + self.pick(_CENTS, (0, 50, 95, 99)) / 100

    @property
    def original_price(self) -> float | None:
        """The price before the discount; None if there is no discount."""
        price = self.current_price
        if price is None or not self.one_in(_REDUCED, 3):
            return None
        percent_off = self.pick(_DISCOUNT, (10, 20, 25, 30, 50))
        return round(price * 100 / (100 - percent_off), 2)

    @property
    def rating(self) -> tuple[float | None, int] | None:
        """The average of 1 to 5 stars, which is None without votes, and the number of votes."""
        if self.one_in(_NO_RATING, 5):
            return None
        votes = self.draw(_REVIEWS, 400)
        return (None if votes == 0 else (20 + self.draw(_RATING, 31)) / 10), votes

    @property
    def updated_at(self) -> datetime | None:
        """The time of the last change, in UTC; None for one product in a hundred."""
        if self.one_in(_NO_UPDATE, 100):
            return None
        return FIRST_INDEX_RUN - timedelta(seconds=self.draw(_UPDATED, 90 * 24 * 3600))

    @property
    def in_stock(self) -> bool | None:
        """True if it is in stock; None for one product in thirty.

        On each day it sells out or comes back for one product in forty.
        """
        if self.one_in(_NO_STOCK, 30):
            return None
        changes = len(self.days_of_change(_STOCK, 40))
        return self.one_in(_STOCK, 8) == (changes % 2 == 1)

    @property
    def image_count(self) -> int:
        """The number of images, 0 to 4."""
        return 0 if self.one_in(_NO_IMAGES, 50) else 1 + self.draw(_IMAGES, 4)

    @property
    def style(self) -> str:
        """The style."""
        return self.pick(_STYLE, STYLES)
