"""What a broken service sends ends in a right result or a clear error, never in half a table."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster import OctogenClient, ProductSearch, build_products_asset
from octogen_dagster.errors import OctogenPagingError, OctogenResponseError
from tests.api.servers import RawServer, Received, http, page, unlisted
from tests.projects import Project
from tests.promises.paged_service import PagedService
from tests.results import failure, octogen_at, scan, stored

Answer = Callable[[dict[str, Any]], dict[str, Any] | bytes]


def read(answer: Answer, *catalogs: str, **settings: Any) -> pl.DataFrame:
    """Read catalogs of a service without a list, whose pages a function makes."""
    with unlisted(lambda request: http(200, answer(request.json))) as server:
        search = ProductSearch(catalogs=list(catalogs) or ["acme"], page_size=2)
        return scan(server, search, **settings).collect()


def numbered(body: dict[str, Any]) -> dict[str, Any]:
    """Pages of two products, the last one of which is page 4."""
    number = int(body.get("cursor", 1))
    return page([f"p{number}", f"q{number}"], str(number + 1) if number < 4 else None)


def test_products_that_come_again_are_removed() -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        return page(["p3", "p1", "p3"], "4") if body.get("cursor") == "3" else numbered(body)

    assert read(answer)["uuid"].to_list() == ["p1", "q1", "p2", "q2", "p3", "p4", "q4"]


def test_a_page_1_that_is_compared_at_the_end_is_said_with_its_cost(project: Project) -> None:
    first = [f"p{number}" for number in range(12)]
    pages = {None: page(first, "2"), "2": page([*first[::-1], "q"], "3"), "3": page(["r"])}
    asset = build_products_asset("products", ProductSearch(q="boots"), retry_policy=None)
    with unlisted(lambda request: http(200, pages[request.json.get("cursor")])) as server:
        result = project.run([asset], octogen_at(server))
    lines = [record.user_message for record in project.instance.all_logs(result.run_id)]
    said = "The search: 14 products in 3 pages, and page 1 again, $0.056, "
    assert any(line.startswith(said) for line in lines), lines


@pytest.mark.parametrize("nothing_new", [[], ["p0", "p1"]], ids=["empty pages", "repeats"])
def test_pages_that_never_end_are_an_error(nothing_new: list[str]) -> None:
    numbers = itertools.count(1)

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        return page(nothing_new if "cursor" in body else ["p0", "p1", "p2"], f"c{next(numbers)}")

    with pytest.raises(
        OctogenPagingError, match=r"consecutive pages, up to page \d+, contained no new"
    ):
        read(answer)
    assert next(numbers) < 40


def test_a_cursor_that_comes_again_is_a_loop() -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        number = int(body.get("cursor", 1))
        return page([f"p{number}"], "2" if number == 3 else str(number + 1))

    with pytest.raises(OctogenPagingError, match=r"page 3 has the same next cursor as page 1"):
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
        frame = scan(server, ProductSearch())
        with pytest.raises(OctogenPagingError, match=r"12,000 products .* source reports 50"):
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
def test_a_bad_product_is_named_with_its_field(fields: dict[str, Any], named: str) -> None:
    products = page(["good", "bad"])
    products["items"][1] |= fields
    with pytest.raises(OctogenResponseError, match=named):
        read(lambda _body: products)


@pytest.mark.parametrize(
    "content", [b"<html>", b"", b'{"items": [', b"[]", b"null", b'{"items": {}}', b"{}"]
)
def test_what_is_no_page_is_never_an_empty_catalog(content: bytes) -> None:
    with pytest.raises(OctogenResponseError, match=r"the service responded with 200 and "):
        read(lambda _body: content)


@pytest.fixture
def resources(tmp_path: Path) -> dict[str, Any]:
    return stored(tmp_path)


def test_a_catalog_that_is_indexed_again_while_it_is_read_keeps_the_snapshot_before(
    tmp_path: Path, resources: dict[str, Any]
) -> None:
    asset = build_products_asset("products", ProductSearch(catalogs=["acme"]), retry_policy=None)
    with PagedService({"acme": 250}).running() as service:
        octogen = octogen_at(service)

        def run() -> dg.ExecuteInProcessResult:
            return dg.materialize(
                [asset], resources={**resources, "octogen": octogen}, raise_on_error=False
            )

        assert run().success
        before = (tmp_path / "products.parquet").read_bytes()

        def index_again(_key: str, number: int, _products: list[dict[str, Any]]) -> None:
            if number == 2:
                service.indexed_at["acme"] = "2026-11-26T05:00:00Z"

        service.change = index_again
        message = failure(run())
    assert "Catalog 'acme' was indexed again while it was being read (lastIndexedAt: " in message
    assert "Nothing was published. Try again" in message
    assert (tmp_path / "products.parquet").read_bytes() == before


# A later page that is like page 1 is read; a service that begins again at page 1 is an error.


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
        limit: The number of products on a page.
        later_pages_begin: The place of the first product of page 2.
        searches: The number of searches so far.
    """

    products: Sequence[str]
    ranked: Ranked
    cursors: Cursors = "of places"
    indexed: Mapping[int, Sequence[str]] = field(default_factory=dict)
    limit: int = LIMIT
    later_pages_begin: int = 0
    searches: int = 0
    _state: int = 0
    _issued: dict[str, tuple[int, int]] = field(default_factory=dict)

    def answer(self, request: Received) -> list[bytes]:
        self.searches += 1
        if self.searches in self.indexed:
            self.products = self.indexed[self.searches]
            self._state += 1
        state, begin = self._issued.get(request.json.get("cursor"), (None, 0))
        if state != self._state:
            cursor = self._cursor(self.later_pages_begin)
            return http(200, page(self.ranked(self.products)[: self.limit], cursor))
        end = begin + self.limit
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
    with unlisted(shop.answer) as server:
        search = ProductSearch(catalogs=["acme"], q="boots", page_size=shop.limit)
        frame = scan(server, search).collect()
    return frame.get_column("uuid").to_list()


def client(shop: Shop) -> list[str]:
    async def read(server: RawServer) -> list[str]:
        async with OctogenClient(api_key=server.api_key, base_url=server.base_url) as client:
            products = client.iter_products(catalog="acme", q="boots", limit=shop.limit)
            return [product.uuid async for product in products]

    with unlisted(shop.answer) as server:
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
        # Page 1 is read again at the end, and once more if its cursor may be of another state.
        assert shop.searches == 1 + 4 + (2 if cursors == "of answers" else 1)

    def test_a_later_page_like_the_first(self, read: Read, cursors: Cursors) -> None:
        def second_ten_first(products: Sequence[str]) -> Sequence[str]:
            return [*products[10:20], *products[:10], *products[20:]]

        assert read(Shop(PRODUCTS, second_ten_first, cursors)) == second_ten_first(PRODUCTS)


@pytest.mark.slow
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
        with pytest.raises(OctogenPagingError, match=r"returned page 1 again|page 1 changed"):
            read(shop)


@BOTH
@pytest.mark.parametrize("cursors", ["of places", "of states"])
def test_a_restart_is_an_error_if_only_page_1_is_what_it_was(read: Read, cursors: Cursors) -> None:
    with pytest.raises(OctogenPagingError, match="returned page 1 again"):
        read(Shop(PRODUCTS, backwards, cursors, {3: PRODUCTS[LIMIT:]}))


@pytest.mark.long
@BOTH
@pytest.mark.parametrize("cursors", ["of places", "of states"])
@pytest.mark.parametrize("limit", [1, 3, 5, 10])
def test_a_restart_is_an_error_however_small_the_pages_and_whatever_the_index_does_later(
    read: Read, cursors: Cursors, limit: int
) -> None:
    products = PRODUCTS[: 7 if limit == 1 else 13]  # the last page of 10 has three
    pages = -(-len(products) // limit)
    for restart in range(2, pages + 1):
        for later in range(restart + 1, restart + pages + 2):  # the last one comes after all pages
            indexed = {restart: products, later: products}
            shop = Shop(products, like_quality, cursors, indexed, limit, later_pages_begin=limit)
            with pytest.raises(OctogenPagingError, match=r"page 1 again|page 1 changed|no new"):
                read(shop)


@BOTH
@pytest.mark.parametrize("cursors", ["of places", "of states"])
def test_a_restart_is_an_error_though_page_1_has_other_products(
    read: Read, cursors: Cursors
) -> None:
    for restart in (3, 4):
        indexed = {restart: PRODUCTS[::-1]}
        shop = Shop(PRODUCTS, like_quality, cursors, indexed, later_pages_begin=LIMIT)
        with pytest.raises(OctogenPagingError, match=r"page 1 again|page 1 changed|pages loop"):
            read(shop)


def test_the_next_run_takes_no_page_of_a_read_that_began_again(project: Project) -> None:
    shop = Shop(PRODUCTS, backwards, "of states", {3: PRODUCTS[LIMIT:]})
    search = ProductSearch(catalogs=["acme"], q="boots", page_size=LIMIT)
    with unlisted(shop.answer) as server:

        def run() -> dg.ExecuteInProcessResult:
            octogen = octogen_at(server)
            return project.run(
                [build_products_asset("boots", search, retry_policy=None)],
                octogen,
                raise_on_error=False,
            )

        assert "returned page 1 again" in failure(run())
        assert run().success
    found = project.read("boots")["uuid"].to_list()
    assert sorted(found) == PRODUCTS[LIMIT:]


@BOTH
@ALL_CURSORS
def test_a_service_that_knows_no_cursor_is_an_error(read: Read, cursors: Cursors) -> None:
    always_stale = dict.fromkeys(range(2, 100), PRODUCTS)
    shop = Shop(PRODUCTS, like_quality, cursors, always_stale)
    with pytest.raises(OctogenPagingError, match="page 1 again instead of page 2"):
        read(shop)
    assert shop.searches <= 3
