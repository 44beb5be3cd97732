"""A search has the rows that the published models say, of each page that they accept.

The service is a socket; its pages are all that `tests/published.py` makes, of both generations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import MerchantProductListItem, ProgrammaticProductSearchPage

from octogen_dagster import (
    PRODUCT_SCHEMA,
    NamedCatalogs,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
    scan_products,
)
from octogen_dagster.errors import OctogenResponseError
from tests import results
from tests.api.servers import RawServer, Received, http
from tests.published import answers, bodies, published, text, unknown_fields, values

EFFECTIVE_QUERY = {"text": "", "understood": False}
SEED_FIELDS = {
    *("uuid", "productUrl", "title", "brand", "currentPrice", "originalPrice", "imageUrl"),
    *("images", "rating", "updatedAt", "isActive"),
}
some_pages = settings(published, max_examples=25)


def pages(*, lax: bool) -> st.SearchStrategy[Any]:
    """Pages of the current generation. All products have an identity: one without is refused."""
    products = answers(MerchantProductListItem, {"uuid": text.filter(bool)}, lax=lax)
    fields = {
        "items": st.lists(products, min_size=1, max_size=3, unique_by=lambda item: item["uuid"]),
        "effectiveQuery": st.just(EFFECTIVE_QUERY),
        "nextCursor": st.none(),
    }
    return answers(ProgrammaticProductSearchPage, fields)


def seed_page(page: dict[str, Any]) -> dict[str, Any]:
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
        if item.get("images"):
            item["images"] = [{"url": i} if isinstance(i, str) else i for i in item["images"]]
    return ProgrammaticProductSearchPage.model_validate_json(json.dumps(page))


def rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a search of the catalog acme, by what the published model says."""
    columns = [name for name in PRODUCT_SCHEMA if name != "fetched_at"]
    return [
        {name: product.get(name) for name in columns}
        | {"catalog_key": "acme" if product["catalog_key"] is None else product["catalog_key"]}
        for product in values(published_page(content))["items"] or ()
    ]


@dataclass
class Service:
    """Answers every search with one page."""

    content: bytes = b""
    server: RawServer = field(init=False)

    def answer(self, request: Received) -> list[bytes]:
        if request.target == "/v1/products/search":
            return http(200, self.content)
        return http(404, {"detail": "Not Found"})

    def read(self, content: bytes) -> pl.DataFrame:
        self.content = content
        search = ProductSearch(catalogs=["acme"])
        frame = scan_products(search, api_key=self.server.api_key, base_url=self.server.base_url)
        return frame.drop("fetched_at").collect()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    with RawServer(service.answer) as service.server:
        yield service


@some_pages
@given(content=bodies(pages(lax=False)))
def test_a_page_of_the_current_generation(service: Service, content: bytes) -> None:
    assert service.read(content).to_dicts() == rows(content)


@some_pages
@given(content=bodies(pages(lax=False).map(seed_page)))
def test_a_page_of_the_seed_generation(service: Service, content: bytes) -> None:
    assert service.read(content).to_dicts() == rows(content)


@some_pages
@given(content=bodies(pages(lax=True)))
def test_values_of_another_type_are_converted(service: Service, content: bytes) -> None:
    assert service.read(content).to_dicts() == rows(content)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"uuid": ""}, "at item 1 whose uuid"),
        ({"productUrl": None}, r"'bad' \(item 1\) whose productUrl"),
        ({"title": True}, r"'bad' \(item 1\) whose title"),
        ({"colors": "blue"}, r"'bad' \(item 1\) whose colors"),
        ({"colors": [None]}, r"'bad' \(item 1\) whose colors.0"),
        ({"rating": {"count": 2.5}}, r"'bad' \(item 1\) whose rating.count"),
        ({"currentPrice": "cheap"}, r"'bad' \(item 1\) whose currentPrice"),
        ({"images": [{"cdnUrl": "x"}]}, r"'bad' \(item 1\) whose images.0.url"),
        ({"updatedAt": "2026-02-30T03:00:00Z"}, r"'bad' \(item 1\) whose updatedAt"),
        ({"updatedAt": "2026-06-30T23:59:60Z"}, r"'bad' \(item 1\) whose updatedAt"),
    ],
)
def test_a_bad_product_is_named_with_its_field(
    service: Service, fields: dict[str, Any], named: str
) -> None:
    products = [{"uuid": "good", "productUrl": "p"}, {"uuid": "bad", "productUrl": "p"} | fields]
    with pytest.raises(OctogenResponseError, match=f"a product {named}"):
        service.read(json.dumps({"items": products}).encode())


@pytest.mark.parametrize(
    "content", [b"<html>", b"", b'{"items": [', b"[]", b"null", b'{"items": {}}', b"{}"]
)
def test_what_is_no_page_is_never_an_empty_catalog(service: Service, content: bytes) -> None:
    with pytest.raises(OctogenResponseError, match=r"was answered with 200 and "):
        service.read(content)


PRODUCTS = build_products_asset("products")


@settings(published, max_examples=5)
@given(page=pages(lax=False))
def test_new_fields_of_the_first_page_are_counted_and_never_refused(
    service: Service, tmp_path_factory: pytest.TempPathFactory, page: dict[str, Any]
) -> None:
    brand = {"name": "Acme", "founder": "W. E."}
    product = {"uuid": "the last", "productUrl": "p", "newField": [1, None], "brand": brand}
    page["items"] = [*page.get("items", ()), product]
    service.content = json.dumps(page).encode()
    numbers = materialized(service, tmp_path_factory.mktemp("snapshots"), [PRODUCTS])["products"]
    theirs = unknown_fields(ProgrammaticProductSearchPage.model_validate_json(service.content))
    assert theirs["items.brand.founder"] >= 1
    assert numbers["octogen/unknown_field_names"] == theirs
    assert numbers["octogen/unknown_fields"] == theirs.total()


def materialized(service: Service, folder: Path, assets: Sequence[Any]) -> dict[str, Any]:
    octogen = OctogenResource(
        api_key=service.server.api_key,
        base_url=service.server.base_url,
        catalogs=NamedCatalogs(["acme"]),
    )
    io_manager = ParquetSnapshotIOManager(base_dir=str(folder))
    result = dg.materialize(assets, resources={"octogen": octogen, "io_manager": io_manager})
    return {asset.key.to_user_string(): results.metadata(result, asset.op.name) for asset in assets}
