"""Made-up search pages for decoding: any page that the service's contract allows."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from octogen_dagster.api.http import Response
from octogen_dagster.frames.wire import WirePage, read_page
from tests.frames.scripted import page

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
maybe_text = st.none() | text
number = st.floats(0, 1e9, allow_nan=False).map(lambda value: round(value, 2))
integer = st.integers(-(2**63), 2**63 - 1)
timestamp = st.datetimes().map(lambda at: at.isoformat()) | st.datetimes().map(
    lambda at: f"{at.isoformat()}Z"
)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects in which every field may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


image_object = st.fixed_dictionaries(
    {"url": text},
    optional={
        "cdnUrl": maybe_text,
        "width": st.none() | integer,
        "height": st.none() | integer,
        "mimeType": maybe_text,
        "sizeBytes": st.none() | integer,
    },
)
brand = _some(name=maybe_text, slug=maybe_text, url=maybe_text, description=maybe_text)
rating = _some(average=st.none() | number, count=st.none() | integer)
texts = st.none() | st.lists(text, max_size=3)


def items(images: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"uuid": st.uuids().map(str), "productUrl": text},
        optional={
            "title": maybe_text,
            "brand": st.none() | brand,
            "currentPrice": st.none() | number | st.integers(0, 1000),
            "originalPrice": st.none() | number,
            "imageUrl": maybe_text,
            "images": st.none() | st.lists(images, max_size=3),
            "rating": st.none() | rating,
            "updatedAt": st.none() | timestamp,
            "isActive": st.none() | st.booleans(),
            "catalogKey": maybe_text,
            "catalogDisplayName": maybe_text,
            "categoryPath": texts,
            "colors": texts,
            "sizes": texts,
            "currency": maybe_text,
            "gender": maybe_text,
            "inStock": st.none() | st.booleans(),
            "primaryImage": st.none() | image_object,
            "displayMatchScore": st.none() | number,
            "rawScore": st.none() | number,
        },
    )


def pages() -> st.SearchStrategy[dict[str, Any]]:
    lists = st.one_of(
        st.lists(items(text), max_size=4),
        st.lists(items(image_object), max_size=4),
        st.lists(items(text | image_object), max_size=4),
    )
    return st.fixed_dictionaries({"items": lists}, optional={"nextCursor": st.none() | text})


def answer(document: Any) -> Response:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Response(200, {"content-type": "application/json", "x-request-id": "r-1"}, content)


def wire_page(*uuids: str, next_cursor: str | None = None) -> WirePage:
    """A checked page of products that have an address and nothing else."""
    return read_page(answer(page(*uuids, next_cursor=next_cursor)), "Page")


PRODUCT = {"uuid": "0b6c1f0e-0000-4000-8000-000000000001", "productUrl": "https://shop.example/1"}
