"""A later page that is like page 1 is read; a service that begins again at page 1 is an error.

Page 1 is ranked by relevance and the later pages by quality, so page 2 may have exactly page 1's
products with good reason. A service sends page 1 for a cursor that it does not know any more, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster import (
    OctogenClient,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
    scan_products,
)
from octogen_dagster.errors import OctogenPagingError
from tests.api.servers import RawServer, Received, http, page
from tests.results import failure

Cursors = Literal["of places", "of states", "of answers"]
Ranked = Callable[[Sequence[str]], Sequence[str]]
LIMIT = 10
PRODUCTS = [f"boot-{number}" for number in range(35)]
ALL_CURSORS = pytest.mark.parametrize("cursors", ["of places", "of states", "of answers"])


@dataclass
class Shop:
    """A service with one catalog, which may be indexed again while it is read.

    Attributes:
        products: The products in order of quality, which is that of the later pages.
        ranked: Brings them into order of relevance, which is that of page 1.
        cursors: Whether the text of a cursor is another one in another state of the index, or in
            each answer. Cursors of an older state are stale, whatever their text.
        indexed: The products from a search on, by the number of the search.
        searches: The number of searches so far.
    """

    products: Sequence[str]
    ranked: Ranked
    cursors: Cursors = "of places"
    indexed: Mapping[int, Sequence[str]] = field(default_factory=dict)
    searches: int = 0
    _state: int = 0
    _issued: dict[str, tuple[int, int]] = field(default_factory=dict)

    def answer(self, request: Received) -> list[bytes]:
        if request.target != "/v1/products/search":
            return http(404, {"detail": "Not Found"})
        self.searches += 1
        if self.searches in self.indexed:
            self.products = self.indexed[self.searches]
            self._state += 1
        state, begin = self._issued.get(request.json.get("cursor"), (None, 0))
        if state != self._state:
            return http(200, page(self.ranked(self.products)[:LIMIT], self._cursor(0)))
        end = begin + LIMIT
        following = self._cursor(end) if end < len(self.products) else None
        return http(200, page(self.products[begin:end], following))

    def _cursor(self, place: int) -> str:
        cursor = {
            "of places": f"{place}",
            "of states": f"{place} of {self._state}",
            "of answers": f"{place} in {self.searches}",
        }[self.cursors]
        self._issued[cursor] = self._state, place
        return cursor


def frame(shop: Shop) -> list[str]:
    with RawServer(shop.answer) as server:
        search = ProductSearch(catalogs=["acme"], q="boots", page_size=LIMIT)
        frame = scan_products(search, api_key=server.api_key, base_url=server.base_url).collect()
    return frame.get_column("uuid").to_list()


def client(shop: Shop) -> list[str]:
    async def read(server: RawServer) -> list[str]:
        async with OctogenClient(api_key=server.api_key, base_url=server.base_url) as client:
            products = client.iter_products(catalog="acme", q="boots", limit=LIMIT)
            return [product.uuid async for product in products]

    with RawServer(shop.answer) as server:
        return asyncio.run(read(server))


Read = Callable[[Shop], list[str]]
BOTH = pytest.mark.parametrize("read", [frame, client])


def like_quality(products: Sequence[str]) -> Sequence[str]:
    return products


def backwards(products: Sequence[str]) -> Sequence[str]:
    return products[::-1]


@BOTH
@ALL_CURSORS
class TestHonest:
    def test_a_second_page_like_the_first(self, read: Read, cursors: Cursors) -> None:
        shop = Shop(PRODUCTS, like_quality, cursors)
        assert read(shop) == PRODUCTS
        assert shop.searches == 1 + 4 + 1  # page 1 is read again at the end

    def test_a_later_page_like_the_first(self, read: Read, cursors: Cursors) -> None:
        def second_ten_first(products: Sequence[str]) -> Sequence[str]:
            return [*products[10:20], *products[:10], *products[20:]]

        assert read(Shop(PRODUCTS, second_ten_first, cursors)) == second_ten_first(PRODUCTS)


@settings(deadline=None, max_examples=25)
@given(
    relevance=st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=LIMIT + 1, max_size=40),
    cursors=st.sampled_from(["of places", "of states", "of answers"]),
)
def test_whatever_is_relevant_each_product_comes_once(
    relevance: list[int], cursors: Cursors
) -> None:
    def ranked(products: Sequence[str]) -> Sequence[str]:
        return [each for _, each in sorted(zip(relevance, products, strict=True))]

    products = [f"boot-{number:02}" for number in range(len(relevance))]
    assert sorted(frame(Shop(products, ranked, cursors))) == products


@BOTH
@ALL_CURSORS
@pytest.mark.parametrize("ranked", [like_quality, backwards])
class TestRestarted:
    """The catalog is indexed again after some searches, so the next cursor is stale."""

    @pytest.mark.parametrize("search", [2, 3, 4, 5])
    def test_the_new_page_1_has_another_product(
        self, read: Read, cursors: Cursors, ranked: Ranked, search: int
    ) -> None:
        changed = ["new", *PRODUCTS[1:-1], "newer"]
        shop = Shop(PRODUCTS, ranked, cursors, {search: changed})
        with pytest.raises(OctogenPagingError, match=r"with page 1 again|has another page 1"):
            read(shop)


@BOTH
@pytest.mark.parametrize("cursors", ["of places", "of states"])
def test_a_restart_is_an_error_if_only_page_1_is_what_it_was(read: Read, cursors: Cursors) -> None:
    with pytest.raises(OctogenPagingError, match="with page 1 again"):
        read(Shop(PRODUCTS, backwards, cursors, {3: PRODUCTS[LIMIT:]}))


def test_the_next_run_takes_no_page_of_a_read_that_began_again(tmp_path: Path) -> None:
    shop = Shop(PRODUCTS, backwards, "of states", {3: PRODUCTS[LIMIT:]})
    search = ProductSearch(catalogs=["acme"], q="boots", page_size=LIMIT)
    with RawServer(shop.answer) as server:

        def run() -> dg.ExecuteInProcessResult:
            octogen = OctogenResource(api_key=server.api_key, base_url=server.base_url)
            io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
            return dg.materialize(
                [build_products_asset("boots", search, retry_policy=None)],
                resources={"octogen": octogen, "io_manager": io_manager},
                raise_on_error=False,
            )

        assert "with page 1 again" in failure(run())
        assert run().success
    found = pl.read_parquet(tmp_path / "boots.parquet")["uuid"].to_list()
    assert sorted(found) == PRODUCTS[LIMIT:]


@BOTH
@ALL_CURSORS
def test_a_service_that_knows_no_cursor_is_an_error(read: Read, cursors: Cursors) -> None:
    always_stale = dict.fromkeys(range(2, 100), PRODUCTS)
    shop = Shop(PRODUCTS, like_quality, cursors, always_stale)
    with pytest.raises(OctogenPagingError, match="answered page 2 with page 1 again"):
        read(shop)
    assert shop.searches <= 3
