"""A feature whose extra is not installed says what to install when definitions load.

`tests/test_install.py` reads the same messages in an environment that lacks the extras.
"""

from __future__ import annotations

import importlib.metadata
import pickle
import sys
from pathlib import Path

import pytest

from octogen_dagster import (
    AnalyticsHubResource,
    ExchangeSource,
    OctogenControlPlaneResource,
    OctogenSource,
    build_linked_datasets_asset,
)
from octogen_dagster.errors import MissingPackageError, OctogenError

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of packages that count as not installed, to add to."""
    names: set[str] = set()
    installed = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    return names


def test_each_package_of_an_extra_is_named_with_the_command_that_installs_it(
    missing: set[str],
) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    packages = [line.partition(">=")[0] for line in (*extras["bigquery"], *extras["mcp"])]
    missing.update(packages)
    with pytest.raises(ImportError) as caught:
        build_linked_datasets_asset(control_plane=True)
    assert str(caught.value) == (
        f"build_linked_datasets_asset needs {', '.join(packages)}: "
        'pip install "octogen-dagster[bigquery,mcp]"'
    )
    assert isinstance(caught.value, OctogenError)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (MissingPackageError, str(caught.value))


def test_features_of_bigquery_and_mcp_say_so_when_definitions_are_made(missing: set[str]) -> None:
    missing.add("mcp")
    build_linked_datasets_asset()
    ExchangeSource("projects/p/locations/us/dataExchanges/x")
    AnalyticsHubResource(project="my-project")
    hint = r'needs mcp: pip install "octogen-dagster\[mcp\]"$'
    with pytest.raises(MissingPackageError, match=hint):
        build_linked_datasets_asset(control_plane=True)
    with pytest.raises(MissingPackageError, match=hint):
        OctogenSource()
    with pytest.raises(MissingPackageError, match=hint):
        OctogenControlPlaneResource(principal="user:me@my.org")
    missing.add("dagster-gcp")
    hint = r'needs dagster-gcp: pip install "octogen-dagster\[bigquery\]"$'
    with pytest.raises(MissingPackageError, match=hint):
        build_linked_datasets_asset()
    with pytest.raises(MissingPackageError, match=hint):
        AnalyticsHubResource(project="my-project")
