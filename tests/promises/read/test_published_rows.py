"""A search has the rows that the published models say, of each page that they accept.

The service is a socket; its pages are all that `tests/published.py` makes, of both generations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from octogen_ai_sdk.generated.models import ProgrammaticProductSearchPage

from octogen_dagster import NamedCatalogs, ProductSearch, build_products_asset
from octogen_dagster.errors import OctogenResponseError
from tests.api.servers import RawServer, Received, http
from tests.published import bodies, published, unknown_fields
from tests.published_pages import pages, rows
from tests.results import materialized, metadata, octogen_at, scan

some_pages = settings(published, max_examples=25)


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
        frame = scan(self.server, search)
        return frame.drop("fetched_at").collect()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    with RawServer(service.answer) as service.server:
        yield service


@pytest.mark.slow
@some_pages
@given(content=bodies(pages(lax=True)))
def test_values_of_another_type_are_converted(service: Service, content: bytes) -> None:
    assert service.read(content).to_dicts() == rows(content)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"uuid": ""}, "uuid in item 1"),
        ({"productUrl": None}, r"productUrl in product 'bad' \(item 1\)"),
        ({"title": True}, r"title in product 'bad' \(item 1\)"),
        ({"colors": "blue"}, r"colors in product 'bad' \(item 1\)"),
        ({"colors": [None]}, r"colors.0 in product 'bad' \(item 1\)"),
        ({"rating": {"count": 2.5}}, r"rating.count in product 'bad' \(item 1\)"),
        ({"currentPrice": "cheap"}, r"currentPrice in product 'bad' \(item 1\)"),
        ({"images": [{"cdnUrl": "x"}]}, r"images.0.url in product 'bad' \(item 1\)"),
        ({"updatedAt": "2026-02-30T03:00:00Z"}, r"updatedAt in product 'bad' \(item 1\)"),
        ({"updatedAt": "2026-06-30T23:59:60Z"}, r"updatedAt in product 'bad' \(item 1\)"),
    ],
)
def test_a_bad_product_is_named_with_its_field(
    service: Service, fields: dict[str, Any], named: str
) -> None:
    products = [{"uuid": "good", "productUrl": "p"}, {"uuid": "bad", "productUrl": "p"} | fields]
    with pytest.raises(OctogenResponseError, match=named):
        service.read(json.dumps({"items": products}).encode())


@pytest.mark.parametrize(
    "content", [b"<html>", b"", b'{"items": [', b"[]", b"null", b'{"items": {}}', b"{}"]
)
def test_what_is_no_page_is_never_an_empty_catalog(service: Service, content: bytes) -> None:
    with pytest.raises(OctogenResponseError, match=r"the service responded with 200 and "):
        service.read(content)


@pytest.mark.slow
@settings(published, max_examples=5)
@given(page=pages(lax=False))
def test_new_fields_of_the_first_page_are_counted_and_never_refused(
    service: Service, tmp_path_factory: pytest.TempPathFactory, page: dict[str, Any]
) -> None:
    brand = {"name": "Acme", "founder": "W. E."}
    product = {"uuid": "the last", "productUrl": "p", "newField": [1, None], "brand": brand}
    page["items"] = [*page.get("items", ()), product]
    service.content = json.dumps(page).encode()
    octogen = octogen_at(service.server, catalog_source=NamedCatalogs(["acme"]))
    asset = build_products_asset("products")
    folder = tmp_path_factory.mktemp("snapshots")
    numbers = metadata(materialized([asset], folder, octogen), "products")
    theirs = unknown_fields(ProgrammaticProductSearchPage.model_validate_json(service.content))
    assert theirs["items.brand.founder"] >= 1
    assert numbers["octogen/unknown_field_names"] == theirs
    assert numbers["octogen/unknown_fields"] == theirs.total()
