"""Products, catalogs and queries as the pages of a search show them, for each generation.

`full_views` has what a lookup shows of a product.
"""

from datetime import datetime
from typing import Any

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.data.product import Product
from octogen_dagster.sandbox.data.text import slug_of
from octogen_dagster.sandbox.rest.effective_query import EffectiveQuery
from octogen_dagster.sandbox.rest.gaps import with_gaps
from octogen_dagster.sandbox.rest.request_bodies import Generation

Json = dict[str, Any]

_IMAGE_COPY, _WHOLE_PRICE = 100, 101
"""Numbers of traits, beyond those in `product`."""


def catalog_summary(catalog: Catalog) -> Json:
    """Return an entry of `GET /catalogs`."""
    return {
        "catalog": catalog.key,
        "displayName": catalog.display_name,
        "sourceBaseUrl": catalog.source_base_url,
        "productCount": catalog.product_count,
        "lastIndexedAt": iso_text(catalog.last_indexed_at),
    }


def effective_query_view(query: EffectiveQuery) -> Json:
    """Return what ran, as a page of the current generation shows it."""
    return query.model_dump(by_alias=True)


def list_item(product: Product, generation: Generation, relevance: int = 0) -> Json:
    """Return a product as a page of a search shows it.

    Args:
        product: The product.
        generation: The contract.
        relevance: The relevance to the keywords; 0 if there were none.
    """
    return with_gaps(product, complete_item(product, generation, relevance))


def complete_item(product: Product, generation: Generation, relevance: int = 0) -> Json:
    """Return an item of a page without gaps. The arguments are those of `list_item`."""
    catalog = product.catalog
    images = image_urls(product)
    rating = product.rating
    item: Json = {
        "uuid": product.uuid,
        "productUrl": product.url,
        "title": product.title,
        "brand": _brand(product),
        "currentPrice": _amount(product, product.current_price),
        "originalPrice": _amount(product, product.original_price),
        "imageUrl": hosted_copy(product, 0) if images else None,
        "images": images,
        "rating": None if rating is None else {"average": rating[0], "count": rating[1]},
        "updatedAt": iso_text(product.updated_at),
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
        "colors": [color.label for color in product.colors] or None,
        "sizes": list(product.kind.sizes) or None,
        "currency": product.currency,
        "gender": product.gender,
        "inStock": product.in_stock,
        "displayMatchScore": min(100, 60 + 4 * relevance) if relevance else None,
        "rawScore": relevance * 1.25 if relevance else None,
    }


def iso_text(moment: datetime | None) -> str | None:
    """Return a time in UTC as ISO 8601 text."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def image_urls(product: Product) -> list[str]:
    """Return the addresses of the images at the shop."""
    folder = f"https://cdn.{product.catalog.domain}/{product.index}"
    return [f"{folder}/{number}.jpg" for number in range(1, product.image_count + 1)]


def hosted_copy(product: Product, number: int) -> str:
    """Return the address of an image's copy on Octogen's CDN."""
    return f"https://cdn.octogen.example/{product.uuid}/{number}.webp"


def _amount(product: Product, price: float | None) -> float | None:
    """Return a price; half of the whole ones without decimals, as the service sends some."""
    if price is not None and price.is_integer() and product.one_in(_WHOLE_PRICE, 2):
        return int(price)
    return price


def _brand(product: Product) -> Json | None:
    name = product.raw_brand_name
    if name is None:
        return None
    slug = slug_of(name)
    return {
        "name": name,
        "slug": slug,
        "url": f"https://www.{product.catalog.domain}/brands/{slug}",
        "description": f"{name}: made to last.",
    }


def _image(product: Product, number: int, url: str) -> Json:
    """Return an image as an object; one in ten has no hosted copy and no size."""
    trait = _IMAGE_COPY + (number << 8)
    if product.one_in(trait, 10):
        measures: Json = dict.fromkeys(("cdnUrl", "width", "height", "mimeType", "sizeBytes"))
    else:
        measures = {
            "cdnUrl": hosted_copy(product, number),
            "width": 1200,
            "height": 1600,
            "mimeType": "image/webp",
            "sizeBytes": 40_000 + product.draw(trait, 200_000),
        }
    return {"url": url, **measures}
