from collections.abc import Iterator

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sandbox.hub.cells import HubCells
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.hub.store import HubStore
from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.clock import FakeClock
from tests.sandbox.hub.calls import connect


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox with a hub and without catalogs."""
    with Sandbox(catalogs=0, hub=True) as running:
        yield running


@pytest.fixture
def hub(sandbox: Sandbox) -> Hub:
    return sandbox.hub


@pytest.fixture
def google(hub: Hub) -> ah.AnalyticsHubServiceClient:
    """Google's client of Analytics Hub, connected to the hub."""
    return connect(hub)


@pytest.fixture
def clock() -> FakeClock:
    """The clock of `store`."""
    return FakeClock(1000.0)


@pytest.fixture
def store(clock: FakeClock) -> HubStore:
    """A store without servers."""
    return HubStore(clock=clock)


@pytest.fixture
def cells(store: HubStore) -> HubCells:
    return HubCells(store)
