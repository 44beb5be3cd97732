"""Products with all fields of a lookup."""

from datetime import timedelta
from typing import Any

from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.data.vocabulary import Color
from octogen_dagster.sandbox.rest.enrichment import enrichment
from octogen_dagster.sandbox.rest.gaps import with_gaps
from octogen_dagster.sandbox.rest.request_bodies import Generation
from octogen_dagster.sandbox.rest.views import complete_item, hosted_copy, image_urls, iso_text

Json = dict[str, Any]

_VIDEO, _PROMOTION, _REVIEW_COUNT, _GTIN = range(110, 114)
"""Numbers of traits, beyond those in `product`."""

_ONLY_IN_LISTS = frozenset(("catalogDisplayName", "categoryPath", "gender"))

_REVIEWERS = ("Inès", "Jürgen", "Mary O'Neil", "Aiko", "D. Okafor")
_OPINIONS = (
    "Exactly as described.",
    'Runs small, "size up" they said - they were right.',
    "Très belle qualité, livraison rapide.",
    "Good, though the color is a bit darker than in the pictures.",
)


def full_view(product: Product, generation: Generation) -> Json:
    """Return a product as a lookup shows it."""
    return with_gaps(product, complete_view(product, generation))


def complete_view(product: Product, generation: Generation) -> Json:
    """Return a product as a lookup shows it, without gaps."""
    catalog, kind = product.catalog, product.kind
    site = f"https://www.{catalog.domain}"
    category_links = [
        {"name": name, "url": f"{site}/c/{slug_of(name)}"} for name in kind.category_path
    ]
    attributes = product.attributes
    title = product.title or kind.noun
    item = complete_item(product, generation)
    return {name: value for name, value in item.items() if name not in _ONLY_IN_LISTS} | {
        "currency": product.currency,
        "description": f"{title} by {product.raw_brand_name or catalog.display_name}.",
        "inStock": product.in_stock,
        "categories": category_links[-1:],
        "sizes": list(kind.sizes),
        "colors": [_color(product, color) for color in product.colors],
        "tags": [product.style, slug_of(kind.noun)],
        "variants": _variants(product),
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
        "breadcrumbs": [{"name": "Home", "url": site}, *category_links],
        "promotions": _promotions(product),
        "reviews": _reviews(product),
        "videos": _videos(product),
        "enrichment": enrichment(product),
    }


def _present(value: str | None) -> list[str]:
    return [] if value is None else [value]


def _color(product: Product, color: Color) -> Json:
    return {
        "label": color.label,
        "swatchUrl": f"https://cdn.{product.catalog.domain}/swatches/{color.name}.png",
        "hexCode": color.hex_code,
    }


def _variants(product: Product) -> list[Json]:
    """Return a variant for each color and size, or a single one."""
    image_url = hosted_copy(product, 0) if image_urls(product) else None
    return [
        {
            "sku": f"{product.index}-{color.name if color else 'one'}-{slug_of(size or 'one')}",
            "productUrl": product.url,
            "color": _color(product, color) if color else None,
            "size": size,
            "inStock": product.in_stock,
            "imageUrl": image_url,
        }
        for color in product.colors or (None,)
        for size in product.kind.sizes or (None,)
    ]


def _promotions(product: Product) -> list[Json]:
    if not product.one_in(_PROMOTION, 10):
        return []
    return [
        {"description": "10 % off your first order", "code": "WELCOME10", "promotionId": "welcome"}
    ]


def _reviews(product: Product) -> list[Json]:
    written = product.updated_at
    return [
        {
            "author": _REVIEWERS[(product.index + number) % len(_REVIEWERS)],
            "rating": 5 - number,
            "body": _OPINIONS[(product.index + number) % len(_OPINIONS)],
            "publishedAt": iso_text(written and written - timedelta(days=7 * (number + 1))),
        }
        for number in range(product.draw(_REVIEW_COUNT, 4) if product.rating else 0)
    ]


def _videos(product: Product) -> list[Json]:
    if not product.one_in(_VIDEO, 15):
        return []
    file = f"https://cdn.{product.catalog.domain}/{product.index}/video"
    return [{"url": f"{file}.mp4", "thumbnailUrl": f"{file}.jpg", "name": product.title}]
