from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from octogen_dagster.resource import OctogenResource
from octogen_dagster.sandbox.server import Sandbox


@pytest.fixture(autouse=True)
def _no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OCTO_API_KEY", "OCTOGEN_PLATFORM_API_KEY", "OCTOGEN_BASE_URL", "OCTOGEN_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shops() -> Iterator[Sandbox]:
    """A sandbox of two catalogs."""
    with Sandbox(catalogs={"northpeak": 230, "strada": 120}) as running:
        yield running


@pytest.fixture
def octogen(shops: Sandbox) -> OctogenResource:
    """The resource that reads it."""
    return OctogenResource(api_key=shops.api_key, base_url=shops.base_url, attempts=2)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as running:
        yield running
