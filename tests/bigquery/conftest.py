from collections.abc import Iterator

import dagster as dg
import pytest

from octogen_dagster.bigquery.listing_sources import ExchangeSource, OctogenSource, Source
from octogen_dagster.sharing import subscribe
from tests.bigquery.daemon import Daemon
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import hostile_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hostile_hub(catalogs=0) as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(subscribe, "WAITS", (0.01,))
        yield hub


@pytest.fixture(params=["exchange", "octogen"])
def source(request: pytest.FixtureRequest, hub: Hub) -> Source:
    """Each of the two sources that find listings by themselves."""
    return ExchangeSource(hub.exchange) if request.param == "exchange" else OctogenSource()


@pytest.fixture
def daemon(source: Source, instance: dg.DagsterInstance) -> Daemon:
    return Daemon(instance, source)
