"""A pytest fixture for pipelines that read Octogen.

Load it in `conftest.py`, then request it by name:

```
pytest_plugins = ["octogen_dagster.sandbox.testing"]


def test_my_pipeline(octogen_sandbox):
    octogen_sandbox.inject(Fault("status", 503, times=2))
    my_pipeline()  # reads the API key, base URL and hosts from the environment
    assert len(octogen_sandbox.requests) > 2
```

For other catalogs or another generation, create an `octogen_dagster.sandbox.server.Sandbox`
yourself.
"""

from collections.abc import Iterator

import pytest

from octogen_dagster.sandbox.server import Sandbox


@pytest.fixture
def octogen_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A running sandbox with three catalogs (fashion, outdoor, shoes) of 40 products each.

    During the test, `STOREROUTER_API_KEY`, `OCTOGEN_PLATFORM_API_KEY`, `OCTO_API_KEY` and
    `OCTOGEN_BASE_URL` are set for the sandbox, and `OCTOGEN_SHOP_HOSTS` contains the hosts of its
    shops.
    """
    with Sandbox(catalogs=["harbor-and-pine", "northpeak", "strada"], products=40) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        yield sandbox
