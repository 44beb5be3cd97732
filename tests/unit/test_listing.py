"""The list of catalogs that the reads of a run share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from octogen_dagster import CatalogSource
from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.errors import OctogenNotFoundError
from tests.api.clients import Clock


class Source(CatalogSource):
    """Lists a catalog whose name is the number of the list."""

    def __init__(self) -> None:
        self.lists = 0
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def fetch(self, _client: Any) -> CatalogList:
        raise NotImplementedError

    def _fetch_blocking(self, _client: BlockingClient) -> CatalogList:
        self.lists += 1
        self.asked.set()
        assert self.may_answer.wait(30)
        return CatalogList([CatalogState(f"{self.lists}")])


def service_of(source: CatalogSource, clock: Clock) -> CatalogService:
    return CatalogService(
        api_key=ApiKey("octo_live_test"),
        base_url="https://octogen.example/v1",
        catalog_source=source,
        clock=clock,
    )


def test_a_list_of_before_the_moment_is_fetched_again() -> None:
    source, clock = Source(), Clock()
    service = service_of(source, clock)
    with BlockingClient(service) as client:
        moments = [clock.now, clock.now, clock.now + 1, clock.now]
        listed = []
        for moment in moments:
            clock.now = max(clock.now, moment)
            listed.append(service.listing.fetched_since(moment, client).catalogs[0].catalog)
    assert listed == ["1", "1", "2", "2"]


def test_those_that_wait_while_a_list_is_fetched_share_the_next_one() -> None:
    source, clock = Source(), Clock()
    service = service_of(source, clock)
    waiting = threading.Semaphore(0)

    def fetch(_: int) -> str:
        with BlockingClient(service, poll=waiting.release) as client:
            return service.listing.fetched_since(clock.now, client).catalogs[0].catalog

    source.may_answer.clear()
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


def test_that_there_is_no_list_is_remembered() -> None:
    class Without(Source):
        def _fetch_blocking(self, _client: BlockingClient) -> CatalogList:
            self.lists += 1
            raise OctogenNotFoundError("There is no list.", httpx.Response(404))

    source, clock = Without(), Clock()
    service = service_of(source, clock)
    with BlockingClient(service) as client:
        for _ in range(2):
            with pytest.raises(OctogenNotFoundError):
                service.listing.of_run(client)
    assert source.lists == 1
