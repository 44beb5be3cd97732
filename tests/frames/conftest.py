from __future__ import annotations

from collections.abc import Iterator

import pytest

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.scripted import ScriptedCatalog, connection_at, service


@pytest.fixture(scope="module", params=["seed", "current"])
def catalogs(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Three catalogs that no test changes, in both generations of the contract."""
    shops = {"northpeak": 230, "strada": 120, "voltaic": 7}
    with Sandbox(catalogs=shops, generation=request.param) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Two catalogs for one test, which may break them."""
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}, generation="seed") as running:
        yield running


@pytest.fixture
def scripted() -> ScriptedCatalog:
    """A catalog of four scripted pages, which a test may change."""
    return ScriptedCatalog(last=4)


@pytest.fixture
def connection(scripted: ScriptedCatalog) -> Iterator[CatalogService]:
    """A connection to the service of `scripted`."""
    with service(scripted) as base_url:
        yield connection_at(base_url)
