"""Pages of products of both generations, and the rows that the published models say they have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import MerchantProductListItem, ProgrammaticProductSearchPage

from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.published import answers, text, values

EFFECTIVE_QUERY = {"text": "", "understood": False}
SEED_FIELDS = {
    *("uuid", "productUrl", "title", "brand", "currentPrice", "originalPrice", "imageUrl"),
    *("images", "rating", "updatedAt", "isActive"),
}


def pages(*, lax: bool) -> st.SearchStrategy[Any]:
    """Pages of the current generation, one after which none comes."""
    products = answers(MerchantProductListItem, {"uuid": text.filter(bool)}, lax=lax)
    fields = {
        "items": st.lists(products, min_size=1, max_size=3, unique_by=lambda item: item["uuid"]),
        "effectiveQuery": st.just(EFFECTIVE_QUERY),
        "nextCursor": st.none(),
    }
    return answers(ProgrammaticProductSearchPage, fields)


def seed_page(page: Mapping[str, Any]) -> dict[str, Any]:
    """The page as a service of the seed generation sends it, with images as texts."""
    items = [
        {name: value for name, value in item.items() if name in SEED_FIELDS}
        for item in page.get("items", ())
    ]
    for item in items:
        if item.get("images"):
            item["images"] = [image["url"] for image in item["images"]]
    return {"items": items, "nextCursor": None}


def published_page(content: bytes) -> ProgrammaticProductSearchPage:
    """What the published model says about a page of either generation."""
    page = json.loads(content)
    page = {"effectiveQuery": EFFECTIVE_QUERY, "requestId": "", **page}
    for item in page.get("items", ()):
        for name in ("images", "primaryImage"):
            item.update({name: _as_objects(item[name])} if item.get(name) else {})
        if len(str(item.get("updatedAt"))) == len("2026-01-01T00:00:00"):
            item["updatedAt"] += "Z"  # the benchmarks have times without a zone
    return ProgrammaticProductSearchPage.model_validate_json(json.dumps(page))


def _as_objects(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_objects(each) for each in value]
    return {"url": value} if isinstance(value, str) else value


def rows(*contents: bytes) -> list[dict[str, Any]]:
    """The rows of pages of the catalog acme, without the time of the read."""
    columns = [name for name in PRODUCT_SCHEMA if name != "fetched_at"]
    return [
        {name: product.get(name) for name in columns}
        | {"catalog_key": "acme" if product["catalog_key"] is None else product["catalog_key"]}
        for content in contents
        for product in values(published_page(content))["items"] or ()
    ]
