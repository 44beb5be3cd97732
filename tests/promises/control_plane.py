"""A server of Octogen's MCP that the environment leads to."""

from __future__ import annotations

import functools
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.errors import OctogenError
from tests.api.leaks import chain
from tests.api.servers import Received
from tests.servers.octogen_mcp import OctogenServer

SECRET = "-secret-"
"""A part of each token of the server."""

POLL_SECONDS = 300


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OctogenServer]:
    """Yield a server whose addresses are in the environment, without a login to it."""
    for name in list(os.environ):
        if name.startswith("OCTOGEN_MCP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    quick = RetryPolicy(attempts=3, deadline=120.0, first_delay=0.001, max_delay=10.0)
    monkeypatch.setattr("octogen_dagster.control_plane.tokens.DEFAULT_RETRY", quick)
    monkeypatch.setenv("HOME", "/no/home")
    with OctogenServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The login pages that were opened, on which a person agrees."""
    pages: list[str] = []
    with ThreadPoolExecutor() as threads:
        visit = functools.partial(httpx.get, follow_redirects=True)

        def open_page(page: str) -> None:
            pages.append(page)
            threads.submit(visit, page)

        monkeypatch.setattr("webbrowser.open", open_page)
        yield pages


def assert_silent(error: BaseException) -> None:
    """Check that no token is in an error, nor in what is shown with it."""
    assert SECRET.encode() not in pickle.dumps(error)
    for each in chain(error):
        lines = traceback.format_exception_only(type(each), each)
        assert SECRET not in f"{each} {each!r} {vars(each)} {lines}"


def failure_of(kind: type[OctogenError], call: Callable[[], object]) -> str:
    """The message of a call's error, in which no token is found, nor in what is shown with it."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert_silent(caught.value)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert SECRET not in "".join(shown.format())
    return str(caught.value)


class SlowEndpoint:
    """A token endpoint that spends the token at once, and answers when it is told to."""

    def __init__(self, server: OctogenServer) -> None:
        self._server = server
        self.spent, self._released = threading.Event(), threading.Event()
        server.fail("token", self._answer)

    def _answer(self, request: Received) -> Iterator[bytes]:
        parts = self._server._token(request)
        self.spent.set()
        assert self._released.wait(POLL_SECONDS)
        yield from parts

    def release(self, stored: Callable[[], str]) -> None:
        """Let it answer, and wait until the new token is stored."""
        assert self.spent.wait(POLL_SECONDS)
        assert stored().strip() == "refresh-secret-0"
        self._released.set()
        ends_at = time.monotonic() + POLL_SECONDS
        while stored().strip() != self._server.refresh_token:
            assert time.monotonic() < ends_at
            time.sleep(0.01)
