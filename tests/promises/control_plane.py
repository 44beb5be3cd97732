"""A server of Octogen's MCP that the environment leads to."""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from octogen_dagster import OctogenControlPlaneResource
from tests.api.leaks import chain
from tests.servers.octogen_mcp import OctogenServer

SECRET = "-secret-"
"""A part of each token of the server."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OctogenServer]:
    """Yield a server whose addresses are in the environment, without a login to it."""
    for name in list(os.environ):
        if name.startswith("OCTOGEN_MCP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    quick = dataclasses.replace(OctogenControlPlaneResource.retry, attempts=3, first_delay=0.001)
    monkeypatch.setattr(OctogenControlPlaneResource, "retry", quick)
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
