"""Fixtures of the promises: both clients, and buckets of S3 and of Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.conftest import (
    _no_proxy_from_outside,
    current,
    either,
    sandbox,
    silent_log,
    transport,
)
from tests.promises.control_plane import browser, server
from tests.promises.tables.engines import (
    bigquery_server,
    postgres,
    postgres_server,
    snowflake_server,
    warehouse,
)
from tests.proxy import Proxy
from tests.servers.buckets import ENVIRONMENT, GoogleBucket, S3Bucket, moto
from tests.servers.gcs import GoogleStorage

__all__ = [
    "_no_proxy_from_outside",
    "bigquery_server",
    "browser",
    "current",
    "either",
    "postgres",
    "postgres_server",
    "sandbox",
    "server",
    "silent_log",
    "snowflake_server",
    "transport",
    "warehouse",
]


@pytest.fixture
def quick_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls of Analytics Hub and looks at its lists follow each other at once."""
    monkeypatch.setattr("octogen_dagster.sharing.subscribe.WAITS", (0.001,) * 5)
    monkeypatch.setattr("octogen_dagster.sharing.hub.FIRST_WAIT", 0.001)


@pytest.fixture(scope="session")
def s3() -> Iterator[Proxy]:
    with moto() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def google() -> Iterator[tuple[Proxy, GoogleStorage]]:
    with GoogleStorage().running() as storage, Proxy() as proxy:
        proxy.upstream = storage.port
        yield proxy, storage


@pytest.fixture(params=["s3", "google"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Bucket]:
    """Yield an empty bucket of each kind."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    if request.param == "s3":
        proxy = request.getfixturevalue("s3")
        made = S3Bucket(proxy)
    else:
        proxy, storage = request.getfixturevalue("google")
        made = GoogleBucket(proxy, storage)
    yield made
    proxy.reset()
