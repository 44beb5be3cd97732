"""What Octogen knows about a canonical brand."""

import zlib
from functools import cache

from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.data.verticals import VERTICALS, Brand

BRANDS = tuple(dict.fromkeys(brand for v in VERTICALS.values() for brand in v.brands))
"""All canonical brands."""

_COUNTRIES = ("Italy", "France", "Japan", "Sweden", "United States", "Portugal")


@cache
def origin_country(brand: Brand) -> str:
    """Return the country that a brand comes from."""
    return _COUNTRIES[_hash_of(brand) % len(_COUNTRIES)]


@cache
def quality_score(brand: Brand) -> float | None:
    """Return the quality of a brand, 1 to 6; None if it is unknown, as for one brand in six."""
    step = _hash_of(brand) // 7 % 12
    return None if step > 10 else 1 + step / 2


def _hash_of(brand: Brand) -> int:
    return zlib.crc32(slug_of(brand.name).encode())
