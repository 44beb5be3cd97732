from collections.abc import Iterator

import httpx
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.calls import connect


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 120, "strada": 30}, generation="seed") as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox) as connected:
        yield connected


@pytest.fixture
def interim_client() -> Iterator[httpx.Client]:
    catalogs = {"northpeak": 120, "strada": 30}
    running = Sandbox(catalogs=catalogs, generation="interim")
    with running, connect(running) as connected:
        yield connected


@pytest.fixture
def current() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 120, "strada": 30}, generation="current") as running:
        yield running


@pytest.fixture
def current_client(current: Sandbox) -> Iterator[httpx.Client]:
    with connect(current) as connected:
        yield connected
