from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from octogen_dagster.sharing import hub as analytics_hub
from octogen_dagster.sharing import subscribe
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import hostile_hub


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OCTOGEN_MCP_", "GOOGLE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for variable in (analytics_hub.EMULATOR_VARIABLE, "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(subscribe, "WAITS", (0.01,))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", "/no/home")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Analytics Hub, Octogen's MCP and its login, with nothing shared."""
    with hostile_hub(catalogs=0) as hub:
        yield hub


@pytest.fixture
def local_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients without an endpoint connect to the sandbox."""
    monkeypatch.setenv(analytics_hub.EMULATOR_VARIABLE, hub.endpoint)
