"""The list of catalogs that the reads of a run share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from octogen_dagster import CatalogSource
from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.credentials import ApiKey
from tests.api.clients import Clock


class Source(CatalogSource):
    """Lists a catalog whose name is the number of the list, when it may answer."""

    def __init__(self) -> None:
        self.lists = 0
        self.asked, self.may_answer = threading.Event(), threading.Event()

    async def fetch(self, _client: Any) -> CatalogList:
        raise NotImplementedError

    def _fetch_blocking(self, _client: BlockingClient) -> CatalogList:
        self.lists += 1
        self.asked.set()
        assert self.may_answer.wait(30)
        return CatalogList([CatalogState(f"{self.lists}")])


def test_those_that_wait_while_a_list_is_fetched_share_the_next_one() -> None:
    source, clock, waiting = Source(), Clock(), threading.Semaphore(0)
    service = CatalogService(
        ApiKey("octo_live_test"),
        "https://octogen.example/v1",
        catalog_source=source,
        clock=clock,
    )

    def fetch(_: int) -> str:
        with BlockingClient(service, poll=waiting.release) as client:
            return service.listing.fetched_since(clock.now, client).catalogs[0].catalog

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(fetch, 0)
        assert source.asked.wait(30)
        clock.now += 1
        others = [threads.submit(fetch, number) for number in range(3)]
        for _ in others:
            assert waiting.acquire(timeout=30)
        source.may_answer.set()
        assert first.result(30) == "1"
        assert {each.result(30) for each in others} == {"2"}
