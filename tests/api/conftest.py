from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import TypeVar

import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import TRANSPORTS, Transport
from tests.api.servers import KEY

CATALOGS = {"northpeak": 120, "strada": 30}

_Result = TypeVar("_Result")


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """The seed generation."""
    with Sandbox(catalogs=CATALOGS, api_key=KEY) as running:
        yield running


@pytest.fixture
def current() -> Iterator[Sandbox]:
    """The current generation."""
    with Sandbox(catalogs=CATALOGS, api_key=KEY, generation="current") as running:
        yield running


@pytest.fixture(params=["seed", "current"])
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Each generation in turn."""
    with Sandbox(catalogs=CATALOGS, api_key=KEY, generation=request.param) as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each way to send requests in turn."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What this thread waited for, in seconds; the waits themselves take no time."""
    here, sleep = threading.get_ident(), asyncio.sleep
    recorded: list[float] = []

    async def recorded_sleep(seconds: float, result: _Result | None = None) -> _Result | None:
        if threading.get_ident() != here:
            return await sleep(seconds, result)
        if seconds:
            recorded.append(seconds)
        return await sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", recorded_sleep)
    return recorded
