from __future__ import annotations

import os
from collections.abc import Iterator

import dagster as dg
import pytest

from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.resource import OctogenResource


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In the gate nothing may be skipped: it installs what a test needs."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("OCTOGEN_CI") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("Tests were skipped, and the gate allows none.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
