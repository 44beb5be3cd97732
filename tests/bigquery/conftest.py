from collections.abc import Iterator

import pytest

from octogen_dagster.sharing import subscribe
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import hostile_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hostile_hub(catalogs=0) as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(subscribe, "WAITS", (0.01,))
        yield hub
