"""Products as search pages and lookups show them. They have gaps: some values are null or missing.

Gaps depend only on the product and the names of the fields, so a product always has the same gaps.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any

from octogen_dagster.sandbox.catalog import Product, mix
from octogen_dagster.sandbox.facets import origin_country
from octogen_dagster.sandbox.words import COLORS, Brand, Color, slug_of

Json = dict[str, Any]

_GAP_ODDS = 40
"""Of this many objects, one lacks a given optional field."""

_IMAGE_COPY, _WHOLE_PRICE, _BRAND_URL, _VIDEO, _PROMOTION, _REVIEW_COUNT, _GTIN = range(100, 107)
"""Numbers of traits, in addition to the traits in `catalog`."""

# fmt: off
_BRAND_TEXTS = (
    "brand_accessibility_index", "brand_community_perception", "brand_craft_production",
    "brand_description", "brand_popularity_level", "brand_popularity_trend_direction",
    "brand_positioning", "brand_quality_justification", "directory_subheading",
    "facet_price_tier", "facet_target_audience", "occasion_fit",
)
_BRAND_LISTS = (
    "facet_brand_cultural_anchors", "facet_brand_ethics", "facet_brand_hype_cycle_stage",
    "facet_brand_inclusivity", "facet_key_people_names", "facet_key_people_nationalities",
    "facet_style_identity", "facet_sustainability",
)
# fmt: on
_REVIEWERS = ("Inès", "Jürgen", "Mary O'Neil", "Aiko", "D. Okafor")
_OPINIONS = (
    "Exactly as described.",
    'Runs small, "size up" they said - they were right.',
    "Très belle qualité, livraison rapide.",
    "Good, though the color is a bit darker than in the pictures.",
)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ALWAYS = _names(
    "uuid productUrl catalogKey catalogDisplayName name url label handle brand_uuid brand_name"
)
"""Fields that are always present if their value is known, and that are never null."""
_TRAITS = _names(
    "title currentPrice originalPrice updatedAt currency inStock brand rating average count"
)
"""Searches filter by these fields.

They have no gaps, except values that the product does not have.
"""
_NEVER_ABSENT = _names("gender age_groups")
_NEVER_NULL = _ALWAYS | _names(
    "isActive images sizes tags categories breadcrumbs colors variants details materials fit"
    " patterns genders ageGroups identifiers promotions reviews videos values"
)
"""The published client rejects null in these fields."""
_NEVER_LOST = _ALWAYS | _TRAITS | _NEVER_ABSENT
_MAPPINGS = _names("attributes attribute_handles classification")
"""Objects whose keys are not fields, so these objects have no gaps."""


def seed_item(product: Product) -> Json:
    return _with_gaps(_listed(product) | {"images": _image_urls(product)}, product.bits)


def current_item(product: Product, relevance: int) -> Json:
    """Return a search result item. Without keywords, the relevance is 0."""
    complete = _listed(product) | _images(product)
    complete["catalogKey"] = product.catalog.key
    complete["catalogDisplayName"] = product.catalog.shop.display_name
    complete["categoryPath"] = list(product.kind.category_path)
    complete["colors"] = [color.label for color in product.colors] or None
    complete["sizes"] = list(product.kind.sizes) or None
    complete["currency"] = product.currency
    complete["gender"] = product.gender
    complete["inStock"] = product.in_stock
    complete["displayMatchScore"] = min(100, 60 + 4 * relevance) if relevance else None
    complete["rawScore"] = relevance * 1.25 if relevance else None
    return _with_gaps(complete, product.bits)


def seed_full_view(product: Product) -> Json:
    complete = _listed(product) | {"images": _image_urls(product)} | _full(product)
    return _with_gaps(complete, product.bits)


def current_full_view(product: Product) -> Json:
    unknown = {"displayMatchScore": None, "rawScore": None}
    complete = _listed(product) | _images(product) | _full(product) | unknown
    complete["catalogKey"] = product.catalog.key
    return _with_gaps(complete, product.bits)


def _listed(product: Product) -> Json:
    rating = product.rating
    return {
        "uuid": product.uuid,
        "productUrl": product.url,
        "title": product.title,
        "brand": _brand(product),
        "currentPrice": _amount(product, product.current_price),
        "originalPrice": _amount(product, product.original_price),
        "imageUrl": _hosted_copy(product, 0) if product.image_count else None,
        "rating": None if rating is None else {"average": rating[0], "count": rating[1]},
        "updatedAt": product.updated_at,
        "isActive": True,
    }


def _amount(product: Product, price: float | None) -> float | None:
    """Return a price.

    As in the service, half of the prices that are whole numbers have no decimals.
    """
    if price is not None and price.is_integer() and product.one_in(_WHOLE_PRICE, 2):
        return int(price)
    return price


def _brand(product: Product) -> Json | None:
    name = product.raw_brand_name
    if name is None:
        return None
    url = f"https://www.{product.catalog.shop.domain}/brands/{slug_of(name)}"
    return {
        "name": name,
        "slug": slug_of(name),
        "url": url if product.one_in(_BRAND_URL, 50) else None,  # hardly any brand has one
        "description": f"{name}: made to last.",
    }


def _image_urls(product: Product) -> list[str]:
    """Return the image URLs at the shop."""
    folder = f"https://cdn.{product.catalog.shop.domain}/{product.index}"
    return [f"{folder}/{number}.jpg" for number in range(1, product.image_count + 1)]


def _hosted_copy(product: Product, number: int) -> str:
    """Return the URL of an image's copy on Octogen's CDN."""
    return f"https://cdn.octogen.example/{product.uuid}/{number}.webp"


def _images(product: Product) -> Json:
    images = [
        {
            "url": url,
            "cdnUrl": _hosted_copy(product, number),
            "width": 1200,
            "height": 1600,
            "mimeType": "image/webp",
            "sizeBytes": 40_000 + product.draw(_IMAGE_COPY + (number << 8), 200_000),
        }
        for number, url in enumerate(_image_urls(product))
    ]
    return {"images": images, "primaryImage": images[0] if images else None}


def _full(product: Product) -> Json:
    """Return the fields that a lookup adds to a search result item."""
    catalog, kind, attributes = product.catalog, product.kind, product.attributes
    site = f"https://www.{catalog.shop.domain}"
    links = [{"name": name, "url": f"{site}/c/{slug_of(name)}"} for name in kind.category_path]
    video = f"https://cdn.{catalog.shop.domain}/{product.index}/video"
    return {
        "currency": product.currency,
        "description": f"{product.title or kind.noun} by "
        f"{product.raw_brand_name or catalog.shop.display_name}.",
        "inStock": product.in_stock,
        "categories": links[-1:],
        "sizes": list(kind.sizes),
        "colors": [_color(product, color) for color in product.colors],
        "tags": [product.style, slug_of(kind.noun)],
        "variants": list(_variants(product)),
        "details": {
            "materials": _present(attributes.get("material")),
            "fit": _present(attributes.get("fit")),
            "dimensions": None,
            "patterns": _present(attributes.get("pattern")),
        },
        "audience": {
            "genders": _present(product.gender),
            "ageGroups": list(product.age_groups),
        },
        "identifiers": {
            "productId": str(product.index),
            "gtin": f"{4_000_000_000_000 + product.draw(_GTIN, 10**12)}",
            "productGroupId": f"{catalog.key}-{slug_of(kind.noun)}",
        },
        "breadcrumbs": [{"name": "Home", "url": site}, *links],
        "promotions": [
            {"description": "10 % off", "code": "WELCOME10", "promotionId": "welcome"}
            for _ in range(product.one_in(_PROMOTION, 10))
        ],
        "reviews": list(_reviews(product)),
        "videos": [
            {"url": f"{video}.mp4", "thumbnailUrl": f"{video}.jpg", "name": product.title}
            for _ in range(product.one_in(_VIDEO, 15))
        ],
        "enrichment": _enrichment(product),
    }


def _present(value: str | None) -> list[str]:
    return [] if value is None else [value]


def _color(product: Product, color: Color) -> Json:
    return {
        "label": color.label,
        "swatchUrl": f"https://cdn.{product.catalog.shop.domain}/swatches/{color.name}.png",
        "hexCode": color.hex_code,
    }


def _variants(product: Product) -> Iterator[Json]:
    """Yield a variant for each color and size, or one variant."""
    for color in product.colors or (None,):
        for size in product.kind.sizes or (None,):
            sku = f"{product.index}-{color.name if color else 'one'}-{slug_of(size or 'one')}"
            yield {
                "sku": sku,
                "productUrl": product.url,
                "color": _color(product, color) if color else None,
                "size": size,
                "inStock": product.in_stock,
                "imageUrl": _hosted_copy(product, 0) if product.image_count else None,
            }


def _reviews(product: Product) -> Iterator[Json]:
    written = product.updated_at
    for number in range(product.draw(_REVIEW_COUNT, 4) if product.rating else 0):
        yield {
            "author": _REVIEWERS[(product.index + number) % len(_REVIEWERS)],
            "rating": 5 - number,
            "body": _OPINIONS[(product.index + number) % len(_OPINIONS)],
            "publishedAt": written and written - timedelta(days=7 * (number + 1)),
        }


def _enrichment(product: Product) -> Json:
    """Return Octogen's additions to the merchant's data."""
    kind, color, brand = product.kind, product.color, product.brand
    handles = {
        name: {"handle": f"{name}__{slug_of(value)}", "name": value}
        for name, value in product.attributes.items()
    }
    path = " > ".join(kind.category_path)
    classification = {"gender": _present(product.gender), "age_group": [*product.age_groups]}
    return {
        "type": kind.noun,
        "type_synonyms": [kind.noun.lower(), kind.category_path[-1].lower()],
        "tags": [product.style],
        "styles": [product.style],
        "gender": product.gender,
        "age_groups": list(product.age_groups),
        "color": _present(color.name if color else None),
        "color_family": _present(color.family if color else None),
        "color_indices": [COLORS.index(color)] if color else [],
        "category_path": list(kind.category_path),
        "classification": classification if kind.gendered else {},
        "fully_qualified_name": path,
        "taxonomy_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, path)),
        "attributes": {name: [value["name"]] for name, value in handles.items()},
        "attribute_handles": {name: [value["handle"]] for name, value in handles.items()},
        "structured_attributes": [
            {"handle": name, "name": name.replace("_", " ").capitalize(), "values": [value]}
            for name, value in handles.items()
        ],
        "is_activewear": kind.is_activewear,
        "image_with_single_product": product.image_count == 1,
        "summary": f"{product.adjective} {kind.noun.lower()} in a {product.style} style.",
        "brand_id": _canonical_brand(brand)["brand_uuid"] if brand else None,
        "canonical_brand": _canonical_brand(brand) if brand else None,
    }


@cache
def _canonical_brand(brand: Brand) -> Json:
    slug, country = slug_of(brand.name), origin_country(brand)
    address = f"https://octogen.example/brands/{slug}"
    return {
        "brand_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, address)),
        "brand_name": brand.name,
        "brand_slug": slug,
        "brand_synonyms": list(brand.spellings),
        "brand_enrichment": {
            **dict.fromkeys(_BRAND_TEXTS, f"{brand.name} is a brand from {country}."),
            **{name: [country] for name in _BRAND_LISTS},
            "brand_quality_score": 1 + len(brand.name) % 11 / 2,
            "domain": f"{slug}.example",
            "facet_origin_country": country,
            "founded_year": 1950 + len(brand.name),
        },
    }


def _with_gaps(complete: Json, bits: int) -> Json:
    """Return an object with gaps, which its 64 random bits determine."""
    sent: Json = {}
    lost = bits % _GAP_ODDS
    for name, value in complete.items():
        number = _number(name)
        if value is not None and (number != lost or name in _NEVER_LOST):
            inner = isinstance(value, dict | list) and name not in _MAPPINGS
            sent[name] = _part(value, bits + number) if inner else value
        elif name in _NEVER_ABSENT or (name not in _NEVER_NULL and bits >> number & 3):
            sent[name] = None
    return sent


@cache
def _number(name: str) -> int:
    return zlib.crc32(name.encode()) % _GAP_ODDS


def _part(value: Any, bits: int) -> Any:
    """Return an object or a list of objects with gaps. Other lists are returned unchanged."""
    if isinstance(value, dict):
        return _with_gaps(value, mix(bits))
    return [
        _with_gaps(part, mix(bits + (place << 8))) if isinstance(part, dict) else part
        for place, part in enumerate(value)
    ]
