"""What a broken service sends ends in a right result or a clear error, never in half a table.

How a service that begins again at page 1 is told from an honest one is in `test_second_page`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
    scan_products,
)
from octogen_dagster.errors import OctogenPagingError, OctogenResponseError
from tests.api.servers import KEY, RawServer, Received, http, page
from tests.promises.paged_service import PagedService
from tests.results import failure

Answer = Callable[[dict[str, Any]], dict[str, Any] | bytes]


def read(answer: Answer, *catalogs: str, **settings: Any) -> pl.DataFrame:
    """Read catalogs of a service without a list, whose pages a function makes."""

    def respond(request: Received) -> list[bytes]:
        if request.target != "/v1/products/search":
            return http(404, {"detail": "Not Found"})
        return http(200, answer(request.json))

    with RawServer(respond) as server:
        search = ProductSearch(catalogs=list(catalogs) or ["acme"], page_size=2)
        return scan_products(search, api_key=KEY, base_url=server.base_url, **settings).collect()


def numbered(body: dict[str, Any]) -> dict[str, Any]:
    """Pages of two products, the last one of which is page 4."""
    number = int(body.get("cursor", 1))
    return page([f"p{number}", f"q{number}"], str(number + 1) if number < 4 else None)


def test_products_that_come_again_are_removed() -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        return page(["p3", "p1", "p3"], "4") if body.get("cursor") == "3" else numbered(body)

    assert read(answer)["uuid"].to_list() == ["p1", "q1", "p2", "q2", "p3", "p4", "q4"]


@pytest.mark.parametrize("nothing_new", [[], ["p0", "p1"]], ids=["empty pages", "repeats"])
def test_pages_that_never_end_are_an_error(nothing_new: list[str]) -> None:
    numbers = itertools.count(1)

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        return page(nothing_new if "cursor" in body else ["p0", "p1", "p2"], f"c{next(numbers)}")

    with pytest.raises(OctogenPagingError, match=r"pages in a row, up to page \d+, brought no new"):
        read(answer)
    assert next(numbers) < 40


def test_a_cursor_that_comes_again_is_a_loop() -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        number = int(body.get("cursor", 1))
        return page([f"p{number}"], "2" if number == 3 else str(number + 1))

    with pytest.raises(OctogenPagingError, match=r"page 3 has the next cursor that page 1 had"):
        read(answer)


def test_new_products_without_an_end_are_an_error() -> None:
    numbers = itertools.count()

    def endless(request: Received) -> list[bytes]:
        if request.target == "/v1/catalogs":
            state = {"catalog": "acme", "productCount": 50, "lastIndexedAt": None}
            return http(200, [state])
        number = next(numbers)
        return http(200, page([f"p{number}-{place}" for place in range(2_000)], f"c{number}"))

    with RawServer(endless) as server:
        frame = scan_products(ProductSearch(), api_key=KEY, base_url=server.base_url)
        with pytest.raises(OctogenPagingError, match=r"12,000 products .* catalogs says 50: the"):
            frame.collect()
    assert next(numbers) == 6


def test_a_field_nested_deep_is_read_and_one_nested_without_end_is_an_error() -> None:
    def nested(depth: int) -> bytes:
        products = page(["p0"])["items"]
        content = json.dumps({"items": [{**products[0], "mood": "@"}]}).encode()
        return content.replace(b'"@"', b"[" * depth + b"]" * depth)

    assert read(lambda _body: nested(500)).height == 1
    with pytest.raises(OctogenResponseError):
        read(lambda _body: nested(100_000))


class Indexed(PagedService):
    """A service whose catalog is indexed again when page 2 is requested."""

    stamp = "2026-11-26T04:00:00Z"

    def _state(self, key: str) -> dict[str, Any]:
        return {**super()._state(key), "lastIndexedAt": self.stamp}


@pytest.fixture
def resources(tmp_path: Path) -> dict[str, Any]:
    return {"io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path))}


def test_a_catalog_that_is_indexed_again_while_it_is_read_keeps_the_snapshot_before(
    tmp_path: Path, resources: dict[str, Any]
) -> None:
    asset = build_products_asset("products", ProductSearch(catalogs=["acme"]), retry_policy=None)
    with Indexed({"acme": 250}).running() as service:
        octogen = OctogenResource(api_key=service.api_key, base_url=service.base_url)

        def run() -> dg.ExecuteInProcessResult:
            return dg.materialize(
                [asset], resources={**resources, "octogen": octogen}, raise_on_error=False
            )

        assert run().success
        before = (tmp_path / "products.parquet").read_bytes()

        def index_again(_key: str, number: int, _products: list[dict[str, Any]]) -> None:
            if number == 2:
                Indexed.stamp = "2026-11-26T05:00:00Z"

        service.change = index_again
        message = failure(run())
    assert "Catalog 'acme' was indexed again while it was read (lastIndexedAt was " in message
    assert "Nothing was published; run it again" in message
    assert (tmp_path / "products.parquet").read_bytes() == before
