"""A request that blocks its thread ends at once when it is interrupted, and costs nothing then."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from octogen_dagster import OctogenClient, OctogenResource
from octogen_dagster.api.spending import Spending
from octogen_dagster.errors import OctogenBudgetError
from tests.api.servers import KEY, POLL_SECONDS, RawServer, http, page

ENDING_SECONDS = 10
"""The promise is two seconds; a busy machine takes longer, and a broken promise 30 or more."""
ONE_PAGE_USD = 0.014
BUDGET_USD = 0.02
"""It allows one page at a time."""


class BusyServer(RawServer):
    """Keeps the first request waiting in some way, and answers all others."""

    def __init__(self, keep_waiting: Callable[[RawServer], Iterable[bytes]]) -> None:
        self.asked = threading.Event()
        super().__init__(lambda _: self._respond(keep_waiting))

    def _respond(self, keep_waiting: Callable[[RawServer], Iterable[bytes]]) -> Iterable[bytes]:
        is_first = not self.asked.is_set()
        self.asked.set()
        return keep_waiting(self) if is_first else http(200, page(["a"]))


def silent(server: RawServer) -> Iterator[bytes]:
    server.closing.wait(POLL_SECONDS)
    yield b""


def dripping(server: RawServer) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nx-slow: "
    while not server.closing.wait(0.1):
        yield b"x"


def rate_limited(_: RawServer) -> Iterable[bytes]:
    return http(429, {"detail": "rate_limit_exceeded"}, retry_after="100")


waits = pytest.mark.parametrize(
    "keep_waiting", [silent, dripping, rate_limited], ids=lambda each: each.__name__
)


@contextmanager
def interrupted_once_asked(server: BusyServer) -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread soon after the server was asked."""
    assert threading.current_thread() is threading.main_thread()

    def interrupt(*_: Any) -> None:
        if server.asked.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@waits
def test_an_interrupt_ends_a_request_and_gives_the_budget_back(keep_waiting: Any) -> None:
    with BusyServer(keep_waiting) as server:
        octogen = OctogenResource(api_key=KEY, base_url=server.base_url, budget_usd=BUDGET_USD)
        began = time.monotonic()
        with interrupted_once_asked(server), pytest.raises(KeyboardInterrupt):
            octogen.search_products()
        assert time.monotonic() - began < ENDING_SECONDS
        assert octogen.search_products().uuids == ["a"]
        with pytest.raises(OctogenBudgetError):
            octogen.search_products()
    assert float(octogen.spending.spent_usd) == ONE_PAGE_USD


def slow_body(server: RawServer) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    while not server.closing.wait(0.1):
        yield b" "


def test_a_page_that_has_begun_to_come_is_charged_although_it_is_interrupted() -> None:
    with BusyServer(slow_body) as server:
        octogen = OctogenResource(api_key=KEY, base_url=server.base_url)
        with interrupted_once_asked(server), pytest.raises(KeyboardInterrupt):
            octogen.search_products()
        assert float(octogen.spending.spent_usd) == ONE_PAGE_USD


@waits
async def test_a_cancelled_task_gives_the_budget_back(keep_waiting: Any) -> None:
    spending = Spending(budget_usd=BUDGET_USD)
    with BusyServer(keep_waiting) as server:
        async with OctogenClient(
            api_key=KEY, base_url=server.base_url, spending=spending
        ) as client:
            searching = asyncio.create_task(client.search_products())
            await asyncio.to_thread(server.asked.wait, POLL_SECONDS)
            await asyncio.sleep(0.2)
            searching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await searching
            assert (await client.search_products()).uuids == ["a"]
            with pytest.raises(OctogenBudgetError):
                await client.search_products()
    assert float(spending.spent_usd) == ONE_PAGE_USD
