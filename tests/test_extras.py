"""Tests of the message that a feature gives whose extra is not installed.

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
from octogen_dagster.extras import require_extras

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())


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


@pytest.mark.parametrize("extra", PROJECT["project"]["optional-dependencies"])
def test_each_package_of_each_extra_is_required(extra: str, missing: set[str]) -> None:
    require_extras("Everything", extra)
    lines = PROJECT["project"]["optional-dependencies"][extra]
    packages = [line.partition(">=")[0] for line in lines]
    missing.update(packages)
    with pytest.raises(MissingPackageError) as caught:
        require_extras("Everything", extra)
    wanted = f'Everything needs {", ".join(packages)}: pip install "octogen-dagster[{extra}]"'
    assert str(caught.value) == wanted


def test_only_the_missing_extras_are_named_in_one_command(missing: set[str]) -> None:
    missing.update({"pyarrow", "mcp"})
    with pytest.raises(MissingPackageError) as caught:
        require_extras("It", "sandbox", "bigquery", "mcp")
    assert str(caught.value) == (
        'It needs pyarrow, mcp: pip install "octogen-dagster[bigquery,mcp]"'
    )


def test_the_error_is_an_import_error_that_can_be_pickled(missing: set[str]) -> None:
    missing.add("mcp")
    with pytest.raises(ImportError) as caught:
        require_extras("It", "mcp")
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
