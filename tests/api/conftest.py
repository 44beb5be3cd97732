from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import TRANSPORTS, Transport
from tests.api.leaks import SECRET
from tests.api.servers import KEY

CATALOGS = {"northpeak": 120, "strada": 30}


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox of the seed generation."""
    with Sandbox(catalogs=CATALOGS, api_key=KEY, generation="seed") as running:
        yield running


@pytest.fixture
def current() -> Iterator[Sandbox]:
    """A sandbox of the current generation."""
    with Sandbox(catalogs=CATALOGS, api_key=KEY, generation="current") as running:
        yield running


@pytest.fixture(params=["seed", "current"])
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each generation in turn."""
    with Sandbox(catalogs=CATALOGS, api_key=KEY, generation=request.param) as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each transport in turn."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture
def silent_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test during which any library logs the key, at any level."""
    _log_everything(caplog)
    yield
    assert _records_with_the_key(caplog) == []


def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    for name in (None, "httpx", "httpcore", "httpx2", "httpcore2", "asyncio", "octogen_dagster"):
        caplog.set_level(logging.DEBUG, logger=name)


def _records_with_the_key(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.get_records("call")
        if SECRET in f"{record.getMessage()} {record.args!r} {record.exc_text}"
    ]
