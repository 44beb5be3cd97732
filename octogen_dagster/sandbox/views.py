"""A product as pages and lookups show it, with gaps: what is unknown is null or absent.

Which fields are unknown depends only on the product and the names of the fields, so that every view
of a product has the same gaps.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from octogen_dagster.sandbox.catalog import Product, mix
from octogen_dagster.sandbox.facets import origin_country
from octogen_dagster.sandbox.words import COLORS, Brand, Color, slug_of

Json = dict[str, Any]

_GAP_ODDS = 40
"""One object in so many lacks a certain field that it may lack."""

_IMAGE_COPY, _WHOLE_PRICE, _BRAND_URL, _VIDEO, _PROMOTION, _REVIEW_COUNT, _GTIN = range(100, 107)
"""Numbers of traits, beyond those in `catalog`."""

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


class _Rule(NamedTuple):
    """What may happen to a field. One that has no rule may be lost, null or absent.

    A field that may be lost is unknown for some products that have it, and one that is unknown is
    null or absent. `fields` has the rules of the objects in the field, if these have gaps too.
    """

    may_be_lost: bool = True
    may_be_null: bool = True
    may_be_absent: bool = True
    fields: Mapping[str, _Rule] | None = None


_FREE = _Rule()
_ALWAYS = _Rule(may_be_lost=False, may_be_null=False, may_be_absent=False)
_NULLABLE = _Rule(may_be_lost=False, may_be_absent=False)
_TRAIT = _Rule(may_be_lost=False)
"""Unknown where the product says so and nowhere else: searches filter by it."""
_NOT_NULL = _Rule(may_be_null=False)
"""The published client refuses a null in its place."""


def _rules(rule: _Rule, *names: str) -> dict[str, _Rule]:
    return dict.fromkeys(names, rule)


def _of(rule: _Rule, fields: Mapping[str, _Rule], *names: str) -> dict[str, _Rule]:
    """The rules of fields with objects, whose own fields have rules."""
    return _rules(rule._replace(fields=fields), *names)


_NAME = _rules(_ALWAYS, "name")
_IMAGE = _rules(_ALWAYS, "url")
_COLOR = _rules(_ALWAYS, "label")
_HANDLE = _rules(_ALWAYS, "handle", "name")
_LISTED = {
    **_rules(_ALWAYS, "uuid", "productUrl"),
    **_rules(_TRAIT, "title", "currentPrice", "originalPrice", "updatedAt"),
    **_rules(_TRAIT, "currency", "gender", "inStock"),
    **_of(_TRAIT, _NAME, "brand"),
    **_of(_TRAIT, _rules(_TRAIT, "average", "count"), "rating"),
    **_rules(_NOT_NULL, "isActive"),
}
_SEED_ITEM = _LISTED | _rules(_NOT_NULL, "images")
_CURRENT = {
    **_LISTED,
    **_of(_NOT_NULL, _IMAGE, "images"),
    **_of(_FREE, _IMAGE, "primaryImage"),
    **_rules(_ALWAYS, "catalogKey"),
}
_CURRENT_ITEM = _CURRENT | _rules(_ALWAYS, "catalogDisplayName")
_CANONICAL_BRAND = {
    **_rules(_ALWAYS, "brand_uuid", "brand_name"),
    **_of(_FREE, {}, "brand_enrichment"),
}
_ENRICHMENT = {
    **_rules(_NULLABLE, "gender", "age_groups"),
    **_of(_FREE, _HANDLE | _of(_NOT_NULL, _HANDLE, "values"), "structured_attributes"),
    **_of(_FREE, _CANONICAL_BRAND, "canonical_brand"),
}
_FULL = {
    **_rules(_NOT_NULL, "sizes", "tags"),
    **_of(_NOT_NULL, _NAME, "categories", "breadcrumbs"),
    **_of(_NOT_NULL, _COLOR, "colors"),
    **_of(_NOT_NULL, _of(_FREE, _COLOR, "color"), "variants"),
    **_of(_NOT_NULL, _rules(_NOT_NULL, "materials", "fit", "patterns"), "details"),
    **_of(_FREE, _rules(_NOT_NULL, "genders", "ageGroups"), "audience"),
    **_of(_NOT_NULL, {}, "identifiers", "promotions", "reviews", "videos"),
    **_of(_FREE, _ENRICHMENT, "enrichment"),
}
"""What a lookup adds to an item of a page."""
_SEED_VIEW = _SEED_ITEM | _FULL
_CURRENT_VIEW = _CURRENT | _FULL


def seed_item(product: Product) -> Json:
    return _with_gaps(_SEED_ITEM, _listed(product) | {"images": _image_urls(product)}, product.bits)


def current_item(product: Product, relevance: int) -> Json:
    """Return an item of a page; its relevance is 0 if there were no keywords."""
    complete = _listed(product) | _images(product)
    complete["catalogKey"] = product.catalog.key
    complete["catalogDisplayName"] = product.catalog.display_name
    complete["categoryPath"] = list(product.kind.category_path)
    complete["colors"] = [color.label for color in product.colors] or None
    complete["sizes"] = list(product.kind.sizes) or None
    complete["currency"] = product.currency
    complete["gender"] = product.gender
    complete["inStock"] = product.in_stock
    complete["displayMatchScore"] = min(100, 60 + 4 * relevance) if relevance else None
    complete["rawScore"] = relevance * 1.25 if relevance else None
    return _with_gaps(_CURRENT_ITEM, complete, product.bits)


def seed_full_view(product: Product) -> Json:
    complete = _listed(product) | {"images": _image_urls(product)} | _full(product)
    return _with_gaps(_SEED_VIEW, complete, product.bits)


def current_full_view(product: Product) -> Json:
    unknown = {"displayMatchScore": None, "rawScore": None}
    complete = _listed(product) | _images(product) | _full(product) | unknown
    complete["catalogKey"] = product.catalog.key
    return _with_gaps(_CURRENT_VIEW, complete, product.bits)


def iso_text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


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
        "updatedAt": iso_text(product.updated_at),
        "isActive": True,
    }


def _amount(product: Product, price: float | None) -> float | None:
    """Return a price; half of the whole ones without decimals, as the service sends some."""
    if price is not None and price.is_integer() and product.one_in(_WHOLE_PRICE, 2):
        return int(price)
    return price


def _brand(product: Product) -> Json | None:
    name = product.raw_brand_name
    if name is None:
        return None
    url = f"https://www.{product.catalog.domain}/brands/{slug_of(name)}"
    return {
        "name": name,
        "slug": slug_of(name),
        "url": url if product.one_in(_BRAND_URL, 50) else None,  # hardly any brand has one
        "description": f"{name}: made to last.",
    }


def _image_urls(product: Product) -> list[str]:
    """Return the addresses of the images at the shop."""
    folder = f"https://cdn.{product.catalog.domain}/{product.index}"
    return [f"{folder}/{number}.jpg" for number in range(1, product.image_count + 1)]


def _hosted_copy(product: Product, number: int) -> str:
    """Return the address of an image's copy on Octogen's CDN."""
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
    """Return what a lookup adds to an item of a page."""
    catalog, kind, attributes = product.catalog, product.kind, product.attributes
    site = f"https://www.{catalog.domain}"
    links = [{"name": name, "url": f"{site}/c/{slug_of(name)}"} for name in kind.category_path]
    video = f"https://cdn.{catalog.domain}/{product.index}/video"
    return {
        "currency": product.currency,
        "description": f"{product.title or kind.noun} by "
        f"{product.raw_brand_name or catalog.display_name}.",
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
        "swatchUrl": f"https://cdn.{product.catalog.domain}/swatches/{color.name}.png",
        "hexCode": color.hex_code,
    }


def _variants(product: Product) -> Iterator[Json]:
    """Yield a variant for each color and size, or a single one."""
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
            "publishedAt": iso_text(written and written - timedelta(days=7 * (number + 1))),
        }


def _enrichment(product: Product) -> Json:
    """Return what Octogen adds to a merchant's data."""
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


def _with_gaps(rules: Mapping[str, _Rule], complete: Json, bits: int) -> Json:
    """Return what is sent of a complete object to which these 64 random bits belong.

    Of a hundred values that may be unknown, two or three are.
    """
    sent: Json = {}
    lost = bits % _GAP_ODDS
    for name, value in complete.items():
        may_be_lost, may_be_null, may_be_absent, inner = rules.get(name, _FREE)
        number = _number(name)
        if value is not None and not (may_be_lost and number == lost):
            sent[name] = value if inner is None else _part(inner, value, bits + number)
        elif may_be_null and not (may_be_absent and bits >> number & 3 == 0):
            sent[name] = None
    return sent


@cache
def _number(name: str) -> int:
    return zlib.crc32(name.encode()) % _GAP_ODDS


def _part(rules: Mapping[str, _Rule], value: Any, bits: int) -> Any:
    if isinstance(value, list):
        return [_with_gaps(rules, part, mix(bits + (n << 8))) for n, part in enumerate(value)]
    return _with_gaps(rules, value, mix(bits))
