"""The gaps in what the service knows: values that are null, and nulls that are not sent.

A view is made complete and then given gaps. Which ones depends only on the product and on the
name of the field, so every view of a product has the same.
"""

import zlib
from functools import cache
from typing import Any

from octogen_dagster.sandbox.data.product import Product

Json = dict[str, Any]

_NULL_PERCENT = 2
"""How often a field is null that `_NULL_PERCENTS` does not name."""

_NULL_PERCENTS = {
    "brand.url": 98,
    "brand.description": 80,
    "brand.slug": 10,
    "enrichment.canonical_brand.brand_enrichment.directory_subheading": 60,
    "variants.imageUrl": 20,
    "promotions.promotionId": 40,
}
_REQUIRED = frozenset(
    (
        "uuid",
        "productUrl",
        "catalogKey",
        "catalogDisplayName",
        "brand.name",
        "images.url",
        "primaryImage.url",
        "categories.name",
        "breadcrumbs.name",
        "colors.label",
        "variants.color.label",
        "enrichment.structured_attributes.handle",
        "enrichment.structured_attributes.name",
        "enrichment.structured_attributes.values.handle",
        "enrichment.structured_attributes.values.name",
        "enrichment.canonical_brand.brand_uuid",
        "enrichment.canonical_brand.brand_name",
    )
)
"""Fields that always have a value."""

_FROM_TRAITS = frozenset(
    (
        "title",
        "brand",
        "currentPrice",
        "originalPrice",
        "currency",
        "rating",
        "rating.average",
        "rating.count",
        "updatedAt",
        "gender",
        "inStock",
        "enrichment.gender",
        "enrichment.age_groups",
    )
)
"""Fields that are null where the product says so, and nowhere else. Searches filter by some."""

_NEVER_NULL = frozenset(
    (
        "isActive",
        "images",
        "colors",
        "sizes",
        "categories",
        "tags",
        "variants",
        "details",
        "details.materials",
        "details.fit",
        "details.patterns",
        "audience.genders",
        "audience.ageGroups",
        "identifiers",
        "breadcrumbs",
        "promotions",
        "reviews",
        "videos",
        "enrichment.structured_attributes.values",
    )
)
"""Fields that the published client refuses to read as null. Where unknown, they are absent."""

_ALWAYS_SENT = frozenset(("enrichment.gender", "enrichment.age_groups"))
_MAPPINGS = frozenset(
    ("enrichment.attributes", "enrichment.attribute_handles", "enrichment.classification")
)
"""Objects whose names are no fields."""

_ABSENT_ODDS = 3


def with_gaps(product: Product, view: Json) -> Json:
    """Return a complete view of a product as the service sends it."""
    return _object(product, view, "", 0)


def _object(product: Product, complete: Json, prefix: str, number: int) -> Json:
    """Return an object with gaps; `number` tells it from others in the same list."""
    sent: Json = {}
    for name, value in complete.items():
        path = f"{prefix}{name}"
        trait = _trait(path) ^ number
        if value is not None and not _is_unknown(product, path, trait):
            sent[name] = value if path in _MAPPINGS else _part(product, value, path, number)
        elif path in _NEVER_NULL:
            continue
        elif path in _ALWAYS_SENT or not product.one_in(trait + 1, _ABSENT_ODDS):
            sent[name] = None
    return sent


def _part(product: Product, value: Any, path: str, number: int) -> Any:
    prefix = f"{path}."
    if isinstance(value, dict):
        return _object(product, value, prefix, number)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_object(product, part, prefix, i << 34) for i, part in enumerate(value)]
    return value


def _is_unknown(product: Product, path: str, trait: int) -> bool:
    if path in _REQUIRED or path in _FROM_TRAITS:
        return False
    return product.draw(trait, 100) < _NULL_PERCENTS.get(path, _NULL_PERCENT)


@cache
def _trait(path: str) -> int:
    """Return a number for a field, beyond those of the products' traits."""
    return zlib.crc32(path.encode()) << 1 | 1 << 33
