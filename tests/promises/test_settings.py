"""A mistyped setting is an error, and a key that is written out is warned of.

Dagster itself is the judge of what must keep working: it makes resources anew in each run.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    AnalyticsHubResource,
    Facet,
    NamedCatalogs,
    OctogenControlPlaneResource,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    ShopCatalogs,
)

KEY = "octo_live_0123456789abcdef0123456789abcdef_c2VjcmV0LW9mLXRoZS1rZXk"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("kind", "settings", "name", "meant"),
    [
        (OctogenResource, {}, "budget", "budget_usd"),
        (OctogenResource, {"catalogs": NamedCatalogs(["acme"])}, "baseurl", "base_url"),
        (ParquetSnapshotIOManager, {"base_dir": "x"}, "resume_within", "resume_within_hours"),
        (AnalyticsHubResource, {"project": "p"}, "credentials", "gcp_credentials"),
        (OctogenControlPlaneResource, {"principal": PRINCIPAL}, "mcp_url", "url"),
        (ProductSearch, {}, "catalog", "catalogs"),
        (Facet, {"name": "gender", "values": ["male"]}, "value", "values"),
    ],
)
def test_a_mistyped_setting_is_an_error_that_says_what_is_meant(
    kind: Any, settings: dict[str, Any], name: str, meant: str
) -> None:
    kind(**settings)
    text = rf"{kind.__name__} has no setting '{name}'\. Did you mean '{meant}'\?"
    with pytest.raises(ValueError, match=text):
        kind(**settings, **{name: 5})


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        (OctogenResource, {}, "host"),
        (OctogenResource, {}, "base_url"),
        (OctogenControlPlaneResource, {"principal": PRINCIPAL}, "host"),
    ],
)
def test_a_setting_that_is_no_text_is_an_error_that_names_it(
    kind: Any, settings: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=rf"{name}\n  Input should be a valid string"):
        kind(**settings, **{name: 5})


@pytest.mark.parametrize("source", [ShopCatalogs, NamedCatalogs])
def test_so_it_is_of_a_source_of_catalogs(source: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'host'"):
        source(host=["acme.example"])


def test_a_setting_that_resembles_none_is_told_with_all_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no setting 'x'\. Use one of api_key, attempts, base_"):
        OctogenResource(x=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (OctogenResource, {}),
        (ParquetSnapshotIOManager, {"base_dir": "x"}),
        (AnalyticsHubResource, {"project": "p"}),
        (OctogenControlPlaneResource, {"principal": PRINCIPAL}),
    ],
)
def test_its_value_is_not_shown(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no setting 'apikey'") as caught:
        kind(**settings, apikey=KEY)
    assert KEY not in str(caught.value)


class Shop(dg.ConfigurableResource[Any]):
    """A user's own resource, which has one of ours inside."""

    octogen: OctogenResource


class Renamed(OctogenResource):
    """A subclass with a setting of its own."""

    team: str = "data"


def found(resource: Any, run_config: dict[str, Any] | None = None) -> list[Any]:
    """What an asset finds in a resource that Dagster made for a run."""
    seen: list[Any] = []

    @dg.asset
    def reads(octogen: dg.ResourceParam[Any]) -> None:
        inner = getattr(octogen, "octogen", octogen)
        seen.extend((inner.base_url, inner.concurrency, inner.api_key))

    config = {"resources": {"octogen": {"config": run_config}}} if run_config else None
    done = dg.materialize([reads], resources={"octogen": resource}, run_config=config)
    assert done.success
    return seen


def test_dagster_passes_no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("MY_URL", "https://octogen.example/v1")
    named: dict[str, Any] = {
        "api_key": dg.EnvVar("MY_KEY"),
        "base_url": dg.EnvVar("MY_URL"),
        "concurrency": 3,
    }
    expected = ["https://octogen.example/v1", 3, KEY]
    octogen = OctogenResource(**named, catalogs=NamedCatalogs(["acme"]))
    assert found(octogen) == expected
    assert found(Shop(octogen=octogen)) == expected
    assert found(Renamed(**named, team="shops")) == expected
    config = {"api_key": {"env": "MY_KEY"}, "base_url": {"env": "MY_URL"}}
    assert found(OctogenResource.configure_at_launch(concurrency=3), config) == expected


def test_a_resource_can_still_be_pickled() -> None:
    octogen = OctogenResource(concurrency=3, host="storerouter.ai")
    again = pickle.loads(pickle.dumps(octogen))
    assert (again.concurrency, again.host) == (3, "storerouter.ai")


def test_an_io_manager_of_a_run_has_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def boots() -> pl.DataFrame:
        return pl.DataFrame({"uuid": ["a"]})

    monkeypatch.setenv("MY_FOLDER", str(tmp_path))
    io_manager = ParquetSnapshotIOManager(base_dir=dg.EnvVar("MY_FOLDER"), resume_within_hours=1)
    assert dg.materialize([boots], resources={"io_manager": io_manager}).success
    assert (tmp_path / "boots.parquet").exists()


WARNINGS = """
import os
import sys
import warnings

import dagster as dg

from octogen_dagster import OctogenResource
from octogen_dagster.sandbox.server import Sandbox

key = sys.argv[1]
os.environ["MY_KEY"] = key


@dg.asset
def reads(octogen: OctogenResource) -> None:
    assert octogen.api_key == key


def told() -> int:
    return sum("written out in code" in str(each.message) for each in caught)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    dg.materialize([reads], resources={"octogen": OctogenResource(api_key=dg.EnvVar("MY_KEY"))})
    OctogenResource(api_key=Sandbox(generation="seed").api_key)
    print(told())
    del os.environ["MY_KEY"]
    OctogenResource(api_key=key)
    OctogenResource(api_key=key, concurrency=2)
    print(told())
    assert not any(key in str(each.message) for each in caught)
"""


@pytest.mark.slow
def test_a_key_that_is_written_out_is_warned_of_once() -> None:
    command = [sys.executable, "-c", WARNINGS, KEY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0", "1"]
