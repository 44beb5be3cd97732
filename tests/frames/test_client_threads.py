"""Threads that work for one consumer, each with a client of its own."""

from __future__ import annotations

import threading

import httpx
import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.background import StoppedError
from octogen_dagster.errors import (
    OctogenBudgetError,
    OctogenError,
    OctogenInsufficientCreditError,
)
from octogen_dagster.frames.client_threads import ClientThreads
from octogen_dagster.frames.decode import read_page
from octogen_dagster.frames.plan import PlannedCatalog
from tests.frames.scripted import ScriptedCatalog, connection_at, service

NOWHERE = connection_at("http://127.0.0.1:1/v1")
PLANNED = PlannedCatalog("acme", ProductSearch().request("acme"))


class OnePageEach(ClientThreads):
    """Each thread requests page 1."""

    def __init__(self, base_url: str, threads: int) -> None:
        super().__init__(connection_at(base_url), threads, "one-page", threading.Event())
        self.clients: set[int] = set()
        self.names: set[str] = set()
        self.together = threading.Barrier(threads)

    def _work(self, client: BlockingClient) -> None:
        self.together.wait(30)
        self.clients.add(id(client))
        self.names.add(threading.current_thread().name)
        client.page(PLANNED.request, "It", 1, read_page)
        self.together.wait(30)


class UntilOver(ClientThreads):
    """The first thread fails, if it has an error to fail with; the others wait for the end."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__(NOWHERE, 3, "until-over", threading.Event())
        self.error = error

    def _work(self, client: BlockingClient) -> None:
        if self.error and threading.current_thread().name == "until-over-0":
            raise self.error
        with self._changed:
            self._changed.wait_for(self._is_over)
            self._raise_if_over()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(self._is_over)
            self._raise_if_over()

    def is_working(self) -> bool:
        return bool(self._working)


def test_each_thread_has_a_client_whose_requests_are_added_up() -> None:
    with service(ScriptedCatalog()) as base_url, OnePageEach(base_url, 3) as threads:
        threads.join()
    assert len(threads.clients) == 3
    assert threads.names == {"one-page-0", "one-page-1", "one-page-2"}
    assert (threads.sent.requests, threads.sent.retries) == (3, 0)


def test_the_first_error_reaches_the_consumer_and_ends_all_threads() -> None:
    with UntilOver(LookupError("broken")) as threads:
        with pytest.raises(LookupError, match="broken"):
            threads.wait()
        threads.join()
    assert not threads.is_working()


class MoneyEnds(ClientThreads):
    """The first thread fails; the others then have a request under way."""

    def __init__(self, base_url: str, error: OctogenError) -> None:
        super().__init__(connection_at(base_url), 3, "money", threading.Event())
        self.error = error
        self.answered: list[str] = []

    def _work(self, client: BlockingClient) -> None:
        if threading.current_thread().name == "money-0":
            raise self.error
        with self._changed:
            self._changed.wait_for(self._is_over)
        page = client.page(PLANNED.request, "It", 1, read_page)
        self.answered += page.uuids

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(self._is_over)
            self._raise_if_over()


@pytest.mark.parametrize(
    "error",
    [
        OctogenBudgetError("spent"),
        OctogenInsufficientCreditError("spent", httpx.Response(402)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_when_the_money_is_spent_what_is_under_way_is_waited_for(error: OctogenError) -> None:
    with (
        service(ScriptedCatalog()) as base_url,
        pytest.raises(OctogenError, match="spent"),
        MoneyEnds(base_url, error) as threads,
    ):
        threads.wait()
    assert threads.answered == ["p1", "q1"] * 2


def test_closing_ends_all_threads_and_is_no_error_of_theirs() -> None:
    with UntilOver() as threads:
        threads.close()
        with pytest.raises(StoppedError):
            threads.wait()
        threads.join()
    assert not threads.is_working()


def test_leaving_the_context_closes() -> None:
    with UntilOver() as threads:
        pass
    threads.join()
    assert not threads.is_working()
