"""What is published is whole and of one state, whatever kills, damages and index runs come between.

Runs side by side save the pages of one walk in one folder. The service forgets the cursors of an
older state; in some histories a cursor has the same text in each state.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster import ProductSearch
from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.http import Response
from octogen_dagster.errors import OctogenPagingError
from octogen_dagster.reading.decode import ProductPage, read_page
from octogen_dagster.reading.pages import PageStore
from octogen_dagster.reading.plan import plan_with_store
from octogen_dagster.reading.walk import Walk, WalkRead
from octogen_dagster.storage.store import Store

PAGES = 60
INDEXED_AT = datetime(2026, 11, 26, tzinfo=UTC)


class Shop:
    """A catalog of 60 pages, the last one short, whose prices are the number of its state."""

    def __init__(self, *, has_stamp: bool, has_same_cursors: bool, page_size: int = 5) -> None:
        self.state = 1
        self.requests = 0
        self.search = ProductSearch(catalogs=["acme"], page_size=page_size)
        self.sizes = [page_size] * (PAGES - 1) + [-(-page_size // 2)]
        self._has_stamp = has_stamp
        self._has_same_cursors = has_same_cursors
        self._issued: dict[str, int] = {}

    @property
    def stamp(self) -> datetime | None:
        return INDEXED_AT + timedelta(hours=self.state) if self._has_stamp else None

    def page(self, cursor: str | None, is_stale: bool) -> ProductPage:
        """A page; page 1 for a cursor of an older state."""
        self.requests += 1
        number = 1
        if cursor and not is_stale and self._issued.get(cursor) == self.state:
            number = int(cursor.partition(" ")[0])
        following = None
        if number < PAGES:
            following = f"{number + 1}" if self._has_same_cursors else f"{number + 1} {self.state}"
            self._issued[following] = self.state
        items = [
            {"uuid": f"{number}-{place}", "currentPrice": self.state, "productUrl": "https://x.y"}
            for place in range(self.sizes[number - 1])
        ]
        body = json.dumps({"items": items, "nextCursor": following}).encode()
        return read_page(Response(200, {}, body), "It")


class Client(BlockingClient):
    """A client of the shop. The shop knows the state of cursors that it gave to this client."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(
            CatalogService(api_key=ApiKey("octo_live_test"), base_url="https://shop.example/v1")
        )
        self._shop = shop
        self._got: dict[str, int] = {}

    def _page(self, cursor: str | None) -> ProductPage:
        is_stale = self._got.get(cursor or "", self._shop.state) != self._shop.state
        page = self._shop.page(cursor, is_stale)
        if page.next_cursor:
            self._got[page.next_cursor] = self._shop.state
        return page

    def page(self, request: Any, *_: Any) -> Any:
        return self._page(request.cursor)

    def pages(self, request: Any, tracker: Any, _read: Any) -> Iterator[Any]:
        cursor = request.cursor
        while True:
            page = self._page(cursor)
            tracker.page_received(page)
            yield page
            cursor = page.next_cursor
            if not cursor:
                return


def _say_nothing(_line: str) -> None:
    pass


class Run:
    """A run that reads the catalog page by page, and may be killed at any of them."""

    def __init__(self, shop: Shop, folder: Path, published: Callable[[list[int]], None]) -> None:
        self._shop = shop
        self._store = PageStore(
            Store(str(folder)),
            ".pages",
            _say_nothing,
            _say_nothing,
            resume_within=timedelta(hours=6),
        )
        self._published = published
        self._read: WalkRead | None = None
        self.steps = self._steps()

    def _steps(self) -> Iterator[None]:
        client, stamp = Client(self._shop), self._shop.stamp
        search = self._shop.search
        walk = Walk(search.request("acme"), (CatalogState("acme", last_indexed_at=stamp),))
        yield
        plan = plan_with_store(search, [[walk]], self._store, client, _say_nothing)
        read = self._read = WalkRead(plan.walks[0])
        pages = []
        try:
            for page in read.pages(client):
                pages.append(page)
                yield
            while stamp is None and read.tracker.may_have_restarted:
                read.tracker.check_first_page(client.page(walk.request))
        except OctogenPagingError:
            assert read.walk.saved
            self._store.discard([read.walk.saved.key])
            return
        yield
        if stamp != self._shop.stamp:
            return  # it was indexed again: the read fails
        products: dict[str, float] = {}
        for page in pages:
            for product in json.loads(page.items):
                products.setdefault(product["uuid"], product["currentPrice"])
        self._published([int(price) for price in products.values()])
        self._store.clear()

    def kill(self) -> None:
        """End without a trace, but for a segment that is just being written."""
        if self._read and self._read.walk.saved:
            self._read.walk.saved.close()


def damage(folder: Path, chance: random.Random) -> None:
    segments = [path for path in folder.rglob("*.pages") if path.is_file()]
    if not segments:
        return
    path = chance.choice(segments)
    content = bytearray(path.read_bytes())
    if not content:  # it was cut before
        return
    match chance.randrange(3):
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(content[: chance.randrange(len(content))])
        case 2:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(content)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    has_stamp=st.booleans(),
    has_same_cursors=st.booleans(),
    page_size=st.sampled_from([1, 2, 5, 12]),
)
def test_what_is_published_is_of_one_state_and_whole(
    seed: int, has_stamp: bool, has_same_cursors: bool, page_size: int
) -> None:
    chance = random.Random(seed)
    shop = Shop(has_stamp=has_stamp, has_same_cursors=has_same_cursors, page_size=page_size)

    def published(prices: list[int]) -> None:
        assert len(prices) == sum(shop.sizes), f"{len(prices)} products were published"
        assert len(set(prices)) == 1, f"the states {set(prices)} are mixed"

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        runs: list[Run] = []
        for _ in range(chance.randrange(10, 40)):
            action = chance.random()
            if action < 0.1:
                shop.state += 1
            elif action < 0.2:
                damage(folder, chance)
            elif action < 0.4 and runs:
                runs.pop(chance.randrange(len(runs))).kill()
            elif len(runs) < 3 and action < 0.6:
                runs.append(Run(shop, folder, published))
            for run in list(runs):
                for _ in range(chance.randrange(20)):
                    if next(run.steps, run) is run:
                        runs.remove(run)
                        break
        for run in runs:
            run.kill()
        last: list[list[int]] = []
        for _ in range(3):  # without a stamp a page of an older state may be met only at its end
            for _step in Run(shop, folder, last.append).steps:
                pass
            if last:
                break
        assert last
        published(last[0])
        assert set(last[0]) == {shop.state}


@settings(max_examples=15, deadline=None)
@given(kills=st.lists(st.integers(1, PAGES - 1), min_size=1, max_size=3), has_stamp=st.booleans())
def test_a_kill_costs_at_most_26_pages(kills: list[int], has_stamp: bool) -> None:
    shop = Shop(has_stamp=has_stamp, has_same_cursors=True)
    published: list[list[int]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for number in sorted(kills):
            run = Run(shop, Path(name), published.append)
            for _ in range(number):
                next(run.steps, None)
            run.kill()
        for _step in Run(shop, Path(name), published.append).steps:
            pass
        assert shop.requests <= PAGES + len(kills) * 26
        assert [len(prices) for prices in published] == [sum(shop.sizes)] * len(published) != []
        assert not (Path(name) / ".pages").exists()
