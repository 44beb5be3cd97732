"""What a broken or hostile service sends must end in a right result or a clear error."""

from __future__ import annotations

import itertools
import json
from typing import Any

import polars as pl
import pytest

from octogen_dagster.api.catalog_sources import CatalogSource
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.connection import Connection
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import OctogenPagingError, OctogenResponseError
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.frames.search import ProductSearch
from tests.frames.scripted import connection_at, page, service


def product_scan(base_url: str, *catalogs: str) -> ProductScan:
    connection = Connection(
        api_key=ApiKey("octo_live_test"), base_url=base_url, retry=RetryPolicy(attempts=1)
    )
    return ProductScan(ProductSearch(catalogs=list(catalogs or ["acme"])), connection)


@pytest.mark.parametrize("nothing_new", [(), ("p0", "p1")], ids=["empty pages", "repeats"])
def test_pages_that_never_end_are_an_error(nothing_new: tuple[str, ...]) -> None:
    numbers = itertools.count(1)

    def answer(body: dict[str, Any]) -> bytes:
        uuids = nothing_new if "cursor" in body else ("p0", "p1", "p2")
        return page(*uuids, next_cursor=f"c{next(numbers)}")

    with (
        service(answer) as base_url,
        pytest.raises(OctogenPagingError, match=r"12 pages in a row, up to page 13, brought no"),
    ):
        product_scan(base_url).frame.collect()


class CountedCatalog(CatalogSource):
    async def fetch(self, client: OctogenClient) -> CatalogList:
        return CatalogList([CatalogState("acme", product_count=50)])


def test_new_products_without_an_end_are_an_error() -> None:
    numbers = itertools.count()

    def answer(_: dict[str, Any]) -> bytes:
        number = next(numbers)
        return page(*(f"p{number}-{place}" for place in range(2_000)), next_cursor=f"c{number}")

    with service(answer) as base_url:
        connection = connection_at(base_url, catalogs=CountedCatalog())
        with pytest.raises(OctogenPagingError, match=r"12,000 products .* catalogs says 50: the"):
            ProductScan(ProductSearch(), connection).frame.collect()
    assert next(numbers) == 6


@pytest.mark.parametrize("cursor", [False, True, [], {}, {"a": 1}])
def test_a_cursor_of_another_type_is_an_error_and_no_end(cursor: Any) -> None:
    with service(lambda _: page("p0", next_cursor=cursor)) as base_url:
        found = product_scan(base_url)
        with pytest.raises(OctogenResponseError, match=r"a wrong nextCursor"):
            found.frame.collect()
        assert not found.statistics.complete


def test_a_number_is_a_cursor_like_any_other() -> None:
    def answer(body: dict[str, Any]) -> bytes:
        return page("p1") if "cursor" in body else page("p0", next_cursor=0)

    with service(answer) as base_url:
        assert product_scan(base_url).frame.collect()["uuid"].to_list() == ["p0", "p1"]


@pytest.mark.parametrize(
    "bytes_",
    [b"\xff", b"\\ud800", b"\\ud800 ", b"\\ud83d\\u0041"],
    ids=["not UTF-8", "a lone surrogate", "and more text", "half a pair"],
)
@pytest.mark.parametrize("field", ["title", "mood"])
def test_bytes_that_are_no_text_are_an_error_that_names_the_place(
    bytes_: bytes, field: str
) -> None:
    products = json.loads(page("p0", "p1", "p2"))["items"]
    products[1][field] = "@"
    content = json.dumps({"items": products}).encode().replace(b"@", bytes_)
    text = r"a body that is not JSON, .* at line 1 column"
    with service(lambda _: content) as base_url, pytest.raises(OctogenResponseError, match=text):
        product_scan(base_url).frame.collect()


def nested(depth: int) -> bytes:
    return page("p0", mood="@").replace(b'"@"', b"[" * depth + b"]" * depth)


def test_a_field_nested_deep_is_counted_like_any_other() -> None:
    with service(lambda _: nested(500)) as base_url:
        found = product_scan(base_url)
        assert found.frame.collect().height == 1
        assert found.statistics.unknown_fields == {"items.mood": 1}


def test_a_field_nested_without_end_is_a_clear_error() -> None:
    with (
        service(lambda _: nested(100_000)) as base_url,
        pytest.raises(OctogenResponseError, match="recursion limit exceeded"),
    ):
        product_scan(base_url).frame.collect()


def test_of_two_fields_of_one_name_everybody_takes_the_last() -> None:
    first, last = (json.loads(page(uuid))["items"] for uuid in ("first", "last"))
    content = f'{{"items": {json.dumps(first)}, "items": {json.dumps(last)}}}'.encode()
    with service(lambda _: content) as base_url:
        assert product_scan(base_url).frame.collect()["uuid"].to_list() == ["last"]


def test_a_service_that_spells_a_catalog_in_its_own_way_is_filtered_all_the_same() -> None:
    with service(lambda _: page("p0", catalogKey="acme")) as base_url:
        frame = product_scan(base_url, "ACME").frame
        assert frame.filter(pl.col("catalog_key") == "acme").collect().height == 1
