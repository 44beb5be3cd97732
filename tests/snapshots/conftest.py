"""Fixtures of the tests of snapshots."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.resource import OctogenResource
from tests.proxy import Proxy
from tests.snapshots.stores import ENVIRONMENT, SERVERS, Store


@pytest.fixture
def resources(tmp_path: Path, octogen: OctogenResource) -> dict[str, Any]:
    """Return resources that read `shops` and store snapshots below `tmp_path`."""
    return {"octogen": octogen, "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path))}


@pytest.fixture(scope="session")
def store_server() -> Iterator[Callable[[str], Proxy]]:
    """Return a function that starts a server of object stores, once for each kind."""
    running: dict[str, Proxy] = {}
    with ExitStack() as servers:

        def start(protocol: str) -> Proxy:
            if protocol not in running:
                running[protocol] = servers.enter_context(SERVERS[protocol]())
            return running[protocol]

        yield start


@pytest.fixture(params=sorted(SERVERS))
def store(
    request: pytest.FixtureRequest,
    store_server: Callable[[str], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Store]:
    """Yield an object store of each kind, with an empty bucket."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    proxy = store_server(request.param)
    yield Store(request.param, proxy)
    proxy.reset()
