"""The full views of a catalog's products, as a lookup answers with them."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.corpora import HOST, SHAPES, Item
from benchmarks.source import Generation


def full_views(catalog: str, products: int, generation: Generation) -> dict[str, bytes]:
    """Return the JSON of the response to a lookup of each product, by its address.

    Args:
        catalog: The catalog key.
        products: The number of products.
        generation: The contract.
    """
    items = SHAPES["plain"].items(generation, products)
    return {item["productUrl"]: json.dumps(_view(item, catalog)).encode() for item in items}


def _view(item: Item, catalog: str) -> dict[str, Any]:
    url, title = item["productUrl"], item["title"]
    product = {name: value for name, value in item.items() if not name.startswith("catalog")}
    product |= {
        "description": f"{title}, cut for every day and made to last. " * 6,
        "inStock": True,
        "categories": [{"name": "Clothing", "url": f"https://{HOST}/clothing"}],
        "sizes": ["S", "M", "L"],
        "colors": [{"label": "Navy", "swatchUrl": None, "hexCode": "#1f2a44"}],
        "tags": ["new", "essentials"],
        "variants": [
            {
                "sku": f"{item['uuid'][-8:]}-{size}",
                "productUrl": f"{url}?size={size}",
                "color": {"label": "Navy", "swatchUrl": None, "hexCode": None},
                "size": size,
                "inStock": size != "L",
                "imageUrl": None,
            }
            for size in ("S", "M", "L")
        ],
        "details": {"materials": ["cotton"], "fit": [], "dimensions": None, "patterns": []},
        "audience": {"genders": ["unisex"], "ageGroups": ["adult"]},
        "identifiers": {"productId": item["uuid"], "gtin": None, "productGroupId": None},
        "breadcrumbs": [{"name": "Home", "url": f"https://{HOST}/"}],
        "promotions": [],
        "reviews": [],
        "videos": [],
        "enrichment": {
            "tags": ["casual"],
            "summary": title,
            "gender": None,
            "age_groups": ["adult"],
        },
    }
    return {
        "requestId": item["uuid"],
        "source": "indexed",
        "catalogKey": catalog,
        "catalogDisplayName": "Northgate",
        "sourceBaseUrl": f"https://{HOST}",
        "requestedUrl": url,
        "normalizedUrl": url,
        "matchedVia": "exact",
        "product": product,
    }
