"""Made-up products as the items of search pages, in every shape that the contract allows.

The products are made here alone: nothing of the sandbox or of the code that is measured is used.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from benchmarks.source import Generation

Item = dict[str, Any]
_Change = Callable[[Item], None]

HOST = "www.northgate.example"
CATALOG_KEY = "@catalog@"
"""Stands for the key of the catalog in an item of the current generation."""
_CDN = "https://img.northgate.example/p"
_BRAND_COUNT = 400
_IMAGE_MEMBERS = ("cdnUrl", "width", "height", "mimeType", "sizeBytes")
_ADJECTIVES = ("Slim", "Relaxed", "Quilted", "Ribbed", "Cropped", "Washed", "Brushed", "Light")
_MATERIALS = ("Cotton", "Merino", "Linen", "Denim", "Leather", "Canvas", "Fleece", "Suede")
_TYPES = {
    "Shirts": ["Shirt", "Polo", "Henley", "Overshirt"],
    "Knitwear": ["Sweater", "Cardigan", "Vest", "Turtleneck"],
    "Trousers": ["Chinos", "Jeans", "Joggers", "Shorts"],
    "Shoes": ["Sneaker", "Boot", "Loafer", "Sandal"],
    "Bags": ["Tote", "Backpack", "Satchel", "Pouch"],
}
_COLORS = ("Black", "Navy", "Ecru", "Olive", "Burgundy", "Stone", "Sky", "Rust", "Charcoal", "Sage")
_SCRIPTS = (
    "メリノウール セーター",
    "قميص قطني",
    "เสื้อยืดผ้าฝ้าย",
    "Čierna košeľa, ½ Größe",
    "靴 👟 限定版",
)
_LONG = 1000


@dataclass(frozen=True)
class Shape:
    """A way in which a page may look.

    Attributes:
        change: Changes an item of the plain corpus.
        once: True if only the first item of a page is changed by `change`.
        others: Changes the items that `once` leaves alone.
        rows_of: The shape whose rows these pages must give, by generation.
        indent: True if the JSON is indented.
        ascii: True if characters beyond ASCII are `\\u` escapes.
        compressed: True if the page is sent with gzip.
    """

    change: _Change = lambda _item: None
    once: bool = False
    others: _Change = lambda _item: None
    rows_of: Mapping[Generation, str] | None = None
    indent: bool = False
    ascii: bool = False
    compressed: bool = False

    def items(self, generation: Generation, count: int, seed: int = 1) -> Iterator[Item]:
        """Yield items, 100 for each page; those of all shapes have the same uuids."""
        for number, item in enumerate(itertools.islice(products(generation, seed), count)):
            (self.others if self.once and number % 100 else self.change)(item)
            yield item

    def encode(self, value: Any) -> bytes:
        """Return JSON in the form of this shape."""
        separators = None if self.indent else (",", ":")
        indent = 2 if self.indent else None
        text = json.dumps(value, ensure_ascii=self.ascii, separators=separators, indent=indent)
        return text.encode()


def products(generation: Generation, seed: int = 1) -> Iterator[Item]:
    """Yield the items of the plain corpus, without end.

    As far as the contract tells, `brand.url` is null nearly always, and so are scores; prices have
    two decimals, times are in UTC, and the other nullable fields are null now and then.
    """
    draw = random.Random(seed)
    brands = [
        f"{draw.choice(_ADJECTIVES)} {draw.choice(_MATERIALS)} {n}" for n in range(_BRAND_COUNT)
    ]
    weights = [1 / (rank + 5) for rank in range(_BRAND_COUNT)]
    for number in itertools.count():
        yield _product(draw, brands, weights, number, generation)


def _product(
    draw: random.Random,
    brands: list[str],
    weights: list[float],
    number: int,
    generation: Generation,
) -> Item:
    digits = f"{draw.getrandbits(96):024x}"
    uuid = f"00000000-{digits[:4]}-{digits[4:8]}-{digits[8:12]}-{digits[12:]}"
    section, kinds = draw.choice(list(_TYPES.items()))
    color = draw.choice(_COLORS)
    title = f"{draw.choice(_ADJECTIVES)} {draw.choice(_MATERIALS)} {draw.choice(kinds)} {color}"
    slug = f"{title.lower().replace(' ', '-')}-{number}"
    price = draw.randrange(9, 400) + draw.choice((0.99, 0.95, 0.5))
    images = [f"{_CDN}/{number}/{view}.jpg" for view in range(draw.randrange(1, 8))]
    moment = datetime(2026, 1, 1) + timedelta(seconds=draw.randrange(26_000_000))
    item: Item = {
        "uuid": uuid,
        "productUrl": f"https://{HOST}/products/{slug}",
        "title": title,
        "brand": _brand(draw, draw.choices(brands, weights)[0]),
        "currentPrice": price,
        "originalPrice": round(price * 1.25, 2) if draw.random() < 0.3 else None,
        "imageUrl": f"https://cdn.octogen.example/{uuid}/0.webp",
        "images": images,
        "rating": _rating(draw),
        "updatedAt": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "isActive": True,
    }
    if generation == "seed":
        return item
    item["images"] = [_image(draw, uuid, url, view) for view, url in enumerate(images)]
    return item | {
        "primaryImage": item["images"][0],
        "catalogKey": CATALOG_KEY,
        "catalogDisplayName": "Northgate",
        "categoryPath": ["Clothing & Accessories", section, kinds[0]],
        "colors": [color],
        "sizes": draw.choice((["S", "M", "L", "XL"], ["38", "39", "40", "41"], None)),
        "currency": "EUR",
        "gender": draw.choice(("male", "female", "unisex", None)),
        "inStock": draw.random() < 0.8,
        "displayMatchScore": None,
        "rawScore": None,
    }


def _brand(draw: random.Random, name: str) -> Item | None:
    if draw.random() < 0.02:
        return None
    slug = name.lower().replace(" ", "-")
    url = f"https://{HOST}/brands/{slug}" if draw.random() < 0.02 else None
    return {"name": name, "slug": slug, "url": url, "description": None}


def _rating(draw: random.Random) -> Item | None:
    if draw.random() < 0.5:
        return None
    return {"average": draw.randrange(10, 50) / 10 + 0.05, "count": draw.randrange(1, 900)}


def _image(draw: random.Random, uuid: str, url: str, view: int) -> Item:
    if draw.random() < 0.1:
        return {"url": url, **dict.fromkeys(_IMAGE_MEMBERS)}
    return {
        "url": url,
        "cdnUrl": f"https://cdn.octogen.example/{uuid}/{view}.webp",
        "width": 1200,
        "height": 1600,
        "mimeType": "image/webp",
        "sizeBytes": draw.randrange(30_000, 300_000),
    }


def _fill_brand_url(item: Item) -> None:
    if item["brand"]:
        item["brand"]["url"] = f"https://{HOST}/brands/{item['brand']['slug']}"


def _null_brand_url(item: Item) -> None:
    item["brand"] = {"name": "Northgate", "slug": None, **(item["brand"] or {}), "url": None}


def _unknown_fields(item: Item) -> None:
    item["sustainability"] = {"score": 0.4, "labels": ["recycled", None]}
    if item["brand"]:
        item["brand"]["founded"] = 1987


def _whole_as_fraction(item: Item) -> None:
    for part in (item["rating"], item.get("primaryImage"), *item["images"]):
        for name in ("count", "width", "height", "sizeBytes"):
            if isinstance(part, dict) and part.get(name) is not None:
                part[name] = float(part[name])


def _whole_prices(item: Item) -> None:
    item["currentPrice"] = int(item["currentPrice"])


def _no_zone(item: Item) -> None:
    item["updatedAt"] = item["updatedAt"].removesuffix("Z")


def _mixed_images(item: Item) -> None:
    for at, image in enumerate(item["images"]):
        if at % 2:
            is_text = isinstance(image, str)
            item["images"][at] = {"url": image} if is_text else image["url"]


def _many_images(item: Item) -> None:
    images = item["images"]
    item["images"] = list(itertools.islice(itertools.cycle(images), 40))


def _no_images(item: Item) -> None:
    item["images"] = []


def _all_null(item: Item) -> None:
    images = item["images"]
    kept = {"uuid", "productUrl", "images", "brand", "isActive"}
    item.update(dict.fromkeys(item.keys() - kept))
    item["brand"] = {"name": "Northgate", "slug": None, "url": None, "description": None}
    item["rating"] = {"average": None, "count": None}
    item["images"] = [
        image if isinstance(image, str) else {**dict.fromkeys(image), "url": image["url"]}
        for image in images
    ]


def _all_absent(item: Item) -> None:
    _all_null(item)
    del item["isActive"]  # which says that it is true
    for part in (item, item["brand"], item["rating"], *item["images"]):
        if isinstance(part, dict):
            for name in [name for name, value in part.items() if value is None]:
                del part[name]


def _long_texts(item: Item) -> None:
    words = itertools.cycle(item["title"].split())
    text = ""
    while len(text) < _LONG:
        text += f"{next(words)} {len(text)} "
    item["title"] = text
    if item["brand"]:
        item["brand"]["description"] = text[::-1]


def _scripts(item: Item) -> None:
    text = _SCRIPTS[int(item["uuid"][-2:], 16) % len(_SCRIPTS)]
    item["title"] = f"{text} {item['title']}"
    if item["brand"]:
        item["brand"]["name"] = f"{text} {item['brand']['name']}"


def _no_price(item: Item) -> None:
    item["currentPrice"] = item["originalPrice"] = None
    if "currency" in item:
        item["currency"] = None


def _both(shape: str) -> Mapping[Generation, str]:
    return {"seed": shape, "current": shape}


_AS_PLAIN = _both("plain")

SHAPES: Mapping[str, Shape] = {
    "plain": Shape(),
    "null brand url everywhere": Shape(_null_brand_url),
    "null brand url once": Shape(_null_brand_url, once=True, others=_fill_brand_url),
    "unknown field everywhere": Shape(_unknown_fields, rows_of=_AS_PLAIN),
    "unknown field once": Shape(_unknown_fields, once=True, rows_of=_AS_PLAIN),
    "whole numbers as 12.0": Shape(_whole_as_fraction, rows_of=_AS_PLAIN),
    "whole prices as 12": Shape(_whole_prices),
    "no zone once": Shape(_no_zone, once=True, rows_of=_AS_PLAIN),
    "no zone everywhere": Shape(_no_zone, rows_of=_AS_PLAIN),
    "mixed images": Shape(_mixed_images, rows_of={"seed": "plain"}),
    "40 images": Shape(_many_images),
    "no images": Shape(_no_images),
    "all null": Shape(_all_null),
    "all absent": Shape(_all_absent, rows_of=_both("all null")),
    "long texts": Shape(_long_texts),
    "other scripts": Shape(_scripts),
    "escapes": Shape(_scripts, ascii=True, rows_of=_both("other scripts")),
    "indented": Shape(indent=True, rows_of=_AS_PLAIN),
    "no price": Shape(_no_price),
    "gzip": Shape(compressed=True, rows_of=_AS_PLAIN),
}
"""The shapes by name. All but the last are of the page; `gzip` is of how it is sent."""
