"""The facets for search filters, and the values that each product has for them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import cache

from octogen_dagster.sandbox.catalog import Product
from octogen_dagster.sandbox.words import VERTICALS, Brand, slug_of

FacetValues = Callable[[Product], Sequence[str]]

_ATTRIBUTE_PREFIX = "attribute_facets."
_CATEGORY = re.compile(r"category_path\.depth_([0-6])")
_ATTRIBUTES = {
    name for each in VERTICALS.values() for kind in each.kinds for name in kind.attributes
}
_COUNTRIES = ("Italy", "France", "Japan", "Sweden", "United States", "Portugal")


def origin_country(brand: Brand) -> str:
    # Not `hash`, which differs between processes.
    return _COUNTRIES[zlib.crc32(brand.name.encode()) % len(_COUNTRIES)]


def is_known_facet(name: str) -> bool:
    return (
        name in _FACETS
        or _CATEGORY.fullmatch(name) is not None
        or name.removeprefix(_ATTRIBUTE_PREFIX) in _ATTRIBUTES
    )


def facet_of_attribute(attribute: str) -> str:
    """Return the name of the facet for an attribute.

    It has a prefix if another facet has the same name.
    """
    return f"{_ATTRIBUTE_PREFIX}{attribute}" if attribute in _FACETS else attribute


def bare_name(name: str) -> str:
    """Return a facet's name without the prefix, such as `fit` for `attribute_facets.fit`."""
    attribute = name.removeprefix(_ATTRIBUTE_PREFIX)
    return name if attribute in _FACETS else attribute


@cache
def facet_values(name: str) -> FacetValues:
    """Return a function that returns a product's canonical values for a facet."""
    if name in _FACETS:
        return _FACETS[name]
    if depth := _CATEGORY.fullmatch(name):
        level = int(depth[1])
        return lambda product: product.kind.category_path[level : level + 1]
    attribute = name.removeprefix(_ATTRIBUTE_PREFIX)
    return lambda product: _known(product.attributes.get(attribute))


def _known(value: str | None) -> Sequence[str]:
    return () if value is None else (value,)


_FACETS: dict[str, FacetValues] = {
    "brand_name": lambda product: _known(brand.name if (brand := product.brand) else None),
    "brand_slug": lambda product: _known(slug_of(brand.name) if (brand := product.brand) else None),
    "brand_origin_country": lambda product: _known(
        origin_country(brand) if (brand := product.brand) else None
    ),
    "raw_brand_name": lambda product: _known(product.raw_brand_name),
    "product_type": lambda product: (product.kind.noun,),
    "gender": lambda product: _known(product.gender),
    "age_groups": lambda product: product.age_groups,
    "color": lambda product: _known(color.name if (color := product.color) else None),
    "color_family": lambda product: _known(color.family if (color := product.color) else None),
    "is_activewear": lambda product: ("true" if product.kind.is_activewear else "false",),
}
"""Facets other than categories and attributes."""
