"""Products and catalogs as JSON values, for each generation of the contract."""

import uuid
from datetime import datetime, timedelta
from typing import Any

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.data.verticals import Brand
from octogen_dagster.sandbox.data.vocabulary import Color
from octogen_dagster.sandbox.rest.effective_query import EffectiveQuery
from octogen_dagster.sandbox.rest.request_bodies import Generation

Json = dict[str, Any]

_VIDEO, _PROMOTION, _REVIEW_COUNT, _IMAGE_COPY, _GTIN, _BRAND_TEXT = range(100, 106)
"""Numbers of traits, beyond those in `product`."""

_REVIEWERS = ("Inès", "Jürgen", "Mary O'Neil", "Aiko", "D. Okafor")
_OPINIONS = (
    "Exactly as described.",
    'Runs small, "size up" they said - they were right.',
    "Très belle qualité, livraison rapide.",
    "Good, though the color is a bit darker than in the pictures.",
)


def catalog_summary(catalog: Catalog) -> Json:
    """Return an entry of `GET /catalogs`."""
    return {
        "catalog": catalog.key,
        "displayName": catalog.display_name,
        "sourceBaseUrl": catalog.source_base_url,
        "productCount": catalog.product_count,
        "lastIndexedAt": _iso(catalog.last_indexed_at),
    }


def list_item(product: Product, generation: Generation, relevance: int = 0) -> Json:
    """Return a product as a page of a search shows it.

    Args:
        product: The product.
        generation: The contract.
        relevance: The relevance to the keywords; 0 if there were none.
    """
    catalog = product.catalog
    images = _image_urls(product)
    rating = product.rating
    item: Json = {
        "uuid": product.uuid,
        "productUrl": product.url,
        "title": product.title,
        "brand": _brand(product),
        "currentPrice": product.current_price,
        "originalPrice": product.original_price,
        "imageUrl": images[0] if images else None,
        "images": images,
        "rating": None if rating is None else {"average": rating[0], "count": rating[1]},
        "updatedAt": _iso(product.updated_at),
        "isActive": True,
    }
    if generation == "seed":
        return item
    image_objects = [_image(product, number, url) for number, url in enumerate(images)]
    item["images"] = image_objects
    if generation == "interim":
        return item
    return item | {
        "primaryImage": image_objects[0] if image_objects else None,
        "catalogKey": catalog.key,
        "catalogDisplayName": catalog.display_name,
        "categoryPath": list(product.kind.category_path),
        "colors": [color.label for color in product.colors],
        "sizes": list(product.kind.sizes),
        "currency": product.currency,
        "gender": product.gender,
        "inStock": product.in_stock,
        "displayMatchScore": min(100, 60 + 4 * relevance) if relevance else None,
        "rawScore": relevance * 1.25 if relevance else None,
    }


def effective_query_view(query: EffectiveQuery) -> Json:
    """Return what ran, as a page of the current generation shows it."""
    return query.model_dump(by_alias=True)


def full_view(product: Product, generation: Generation) -> Json:
    """Return a product with all fields of a lookup."""
    catalog, kind = product.catalog, product.kind
    site = f"https://www.{catalog.domain}"
    category_links = [
        {"name": name, "url": f"{site}/c/{slug_of(name)}"} for name in kind.category_path
    ]
    attributes = product.attributes
    title = product.title or kind.noun
    return list_item(product, generation) | {
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
        "enrichment": _enrichment(product),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _present(value: str | None) -> list[str]:
    return [] if value is None else [value]


def _brand(product: Product) -> Json | None:
    name = product.raw_brand_name
    if name is None:
        return None
    slug = slug_of(name)
    return {
        "name": name,
        "slug": slug,
        "url": f"https://www.{product.catalog.domain}/brands/{slug}",
        "description": None if product.one_in(_BRAND_TEXT, 3) else f"{name}: made to last.",
    }


def _image_urls(product: Product) -> list[str]:
    folder = f"https://cdn.{product.catalog.domain}/{product.index}"
    return [f"{folder}/{number}.jpg" for number in range(1, product.image_count + 1)]


def _image(product: Product, number: int, url: str) -> Json:
    """Return an image of the current generation; one in ten has no hosted copy and no size."""
    if product.one_in(_IMAGE_COPY + (number << 8), 10):
        measures: Json = dict.fromkeys(("cdnUrl", "width", "height", "mimeType", "sizeBytes"))
    else:
        measures = {
            "cdnUrl": f"https://images.octogen.example/{product.uuid}/{number}.webp",
            "width": 1200,
            "height": 1600,
            "mimeType": "image/webp",
            "sizeBytes": 40_000 + product.draw(_IMAGE_COPY + (number << 8), 200_000),
        }
    return {"url": url, **measures}


def _color(product: Product, color: Color) -> Json:
    return {
        "label": color.label,
        "swatchUrl": f"https://cdn.{product.catalog.domain}/swatches/{color.name}.png",
        "hexCode": color.hex_code,
    }


def _variants(product: Product) -> list[Json]:
    """Return a variant for each color and size, or a single one."""
    images = _image_urls(product)
    return [
        {
            "sku": f"{product.index}-{color.name if color else 'one'}-{slug_of(size or 'one')}",
            "productUrl": product.url,
            "color": _color(product, color) if color else None,
            "size": size,
            "inStock": product.in_stock,
            "imageUrl": images[0] if images else None,
        }
        for color in product.colors or (None,)
        for size in product.kind.sizes or (None,)
    ]


def _promotions(product: Product) -> list[Json]:
    if not product.one_in(_PROMOTION, 10):
        return []
    return [{"description": "10 % off your first order", "code": "WELCOME10"}]


def _reviews(product: Product) -> list[Json]:
    written = product.updated_at
    return [
        {
            "author": _REVIEWERS[(product.index + number) % len(_REVIEWERS)],
            "rating": float(5 - number),
            "body": _OPINIONS[(product.index + number) % len(_OPINIONS)],
            "publishedAt": _iso(written and written - timedelta(days=7 * (number + 1))),
        }
        for number in range(product.draw(_REVIEW_COUNT, 4) if product.rating else 0)
    ]


def _videos(product: Product) -> list[Json]:
    if not product.one_in(_VIDEO, 15):
        return []
    file = f"https://cdn.{product.catalog.domain}/{product.index}/video"
    return [{"url": f"{file}.mp4", "thumbnailUrl": f"{file}.jpg", "name": product.title}]


def _enrichment(product: Product) -> Json:
    """Return what Octogen adds to the merchant's data, in snake_case as in the contract."""
    kind, color, brand = product.kind, product.color, product.brand
    return {
        "type": kind.noun,
        "tags": [product.style],
        "styles": [product.style],
        "gender": product.gender,
        "age_groups": list(product.age_groups),
        "color": _present(color.name if color else None),
        "color_family": _present(color.family if color else None),
        "category_path": list(kind.category_path),
        "attributes": {name: [value] for name, value in product.attributes.items()},
        "is_activewear": kind.is_activewear,
        "summary": f"{product.adjective} {kind.noun.lower()} in a {product.style} style.",
        "canonical_brand": _canonical_brand(brand) if brand else None,
    }


def _canonical_brand(brand: Brand) -> Json:
    slug = slug_of(brand.name)
    return {
        "brand_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://octogen.example/brands/{slug}")),
        "brand_name": brand.name,
        "brand_slug": slug,
        "brand_synonyms": list(brand.spellings),
    }
