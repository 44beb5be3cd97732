"""Batches of pages, read by threads for one consumer."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.frames.catalog_read import CatalogRead
from octogen_dagster.frames.decode import ProductPage, read_page
from octogen_dagster.frames.plan import PlannedCatalog
from octogen_dagster.frames.reader import MAX_BATCH_BYTES, MAX_READ_AHEAD_BYTES, BulkReader
from tests.frames.products import answer, wire_page
from tests.frames.scripted import ScriptedCatalog, connection_at, service

SEARCH = ProductSearch(page_size=2)
NOWHERE = connection_at("http://127.0.0.1:1/v1")


def catalog_read(catalog: str = "acme") -> CatalogRead:
    return CatalogRead(PlannedCatalog(catalog, SEARCH.request(catalog)))


def read_all(base_url: str, reads: list[CatalogRead], **options: Any) -> list[list[str]]:
    """The catalog of each batch and the first product of each of its pages."""
    with BulkReader(
        connection_at(base_url), reads, pages_per_batch=3, **options, stop=threading.Event()
    ) as reader:
        return [
            [read.planned.catalog or "", *(each.uuids[0] for each in pages)]
            for read, pages in filter(None, reader)
        ]


@pytest.mark.parametrize("read_ahead", [True, False])
def test_batches_are_consecutive_pages_and_the_last_one_is_the_rest(read_ahead: bool) -> None:
    with service(ScriptedCatalog(last=7)) as base_url:
        batches = read_all(base_url, [catalog_read()], concurrency=1, read_ahead=read_ahead)
    assert batches == [["acme", "p1", "p2", "p3"], ["acme", "p4", "p5", "p6"], ["acme", "p7"]]


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_each_of_many_catalogs_is_read_whole_and_in_order(concurrency: int) -> None:
    reads = [catalog_read(f"shop-{number}") for number in range(5)]
    with service(ScriptedCatalog(last=4)) as base_url:
        batches = read_all(base_url, reads, concurrency=concurrency)
    pages: defaultdict[str, list[str]] = defaultdict(list)
    for catalog, *uuids in batches:
        pages[catalog] += uuids
    assert pages == {f"shop-{number}": ["p1", "p2", "p3", "p4"] for number in range(5)}


def test_without_catalogs_there_are_no_batches() -> None:
    with BulkReader(
        NOWHERE, [], concurrency=8, pages_per_batch=3, stop=threading.Event()
    ) as reader:
        assert list(reader) == []


def test_without_reading_ahead_no_page_is_requested_before_it_is_wanted() -> None:
    scripted = ScriptedCatalog(last=4)
    with (
        service(scripted) as base_url,
        BulkReader(
            connection_at(base_url),
            [catalog_read()],
            1,
            pages_per_batch=1,
            read_ahead=False,
            stop=threading.Event(),
        ) as reader,
    ):
        batches = filter(None, iter(reader))
        for requested in (1, 2):
            next(batches)
            assert len(scripted.cursors) == requested


def test_reading_ahead_stops_at_two_batches_that_nobody_took() -> None:
    ahead, is_taken = threading.Event(), threading.Event()
    too_many: list[int] = []

    class Endless(CatalogRead):
        def pages(self, client: BlockingClient) -> Iterator[ProductPage]:
            for number in range(1, 21):
                if number > 6 and not is_taken.is_set():
                    too_many.append(number)
                yield wire_page(f"p{number}", next_cursor="more" if number < 20 else None)
                if number == 5:  # the sixth page is the last that there is room for
                    ahead.set()

    read = Endless(PlannedCatalog("acme", SEARCH.request("acme")))
    with BulkReader(
        NOWHERE, [read], concurrency=1, pages_per_batch=3, stop=threading.Event()
    ) as reader:
        assert ahead.wait(30)
        is_taken.set()
        pages = [len(batch[1]) for batch in reader if batch]
    assert sum(pages) == 20
    assert not too_many


def test_an_error_reaches_the_consumer() -> None:
    scripted = ScriptedCatalog(last=4)
    scripted.contents["c3"] = b"[]"
    with (
        service(scripted) as base_url,
        pytest.raises(OctogenResponseError, match="page 3, was answered with 200"),
    ):
        read_all(base_url, [catalog_read()], concurrency=1)


class Heavy(CatalogRead):
    """Pages of one MiB each; `unread` counts those that are not yet consumed."""

    def __init__(self, number: int, unread: Counter[str], largest: list[int]) -> None:
        super().__init__(PlannedCatalog(f"shop-{number}", SEARCH.request(f"shop-{number}")))
        self.unread = unread
        self.largest = largest

    def pages(self, client: BlockingClient) -> Iterator[ProductPage]:
        for number in range(1, 9):
            self.unread["pages"] += 1
            self.largest.append(self.unread["pages"])
            product = {"uuid": f"p{number}", "productUrl": "p", "title": "long " * (1 << 18)}
            cursor = "more" if number < 8 else None
            yield read_page(answer({"items": [product], "nextCursor": cursor}), "Page")


@pytest.mark.parametrize("catalogs", [1, 40])
def test_all_catalogs_together_read_ahead_within_one_budget_of_bytes(catalogs: int) -> None:
    budget = MAX_READ_AHEAD_BYTES >> 20
    unread, largest = Counter[str](), [0]
    reads = [Heavy(number, unread, largest) for number in range(catalogs)]
    batches: list[int] = []
    with BulkReader(
        NOWHERE, reads, concurrency=catalogs, pages_per_batch=10, stop=threading.Event()
    ) as reader:
        for batch in filter(None, reader):
            batches.append(len(batch[1]))
            unread["pages"] -= len(batch[1])
    assert sum(batches) == 8 * catalogs
    # Each catalog may have the page it is on, and one that it began while there was room.
    assert max(largest) <= budget + 2 * catalogs
    assert max(batches) <= 2 * MAX_BATCH_BYTES >> 20
