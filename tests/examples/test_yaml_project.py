"""examples/yaml_project is loaded, and what it has is materialized from a sandbox."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.sandbox import DEFAULT_API_KEY, DEFAULT_BASE_URL
from octogen_dagster.sandbox.server import Sandbox

PROJECT = Path(__file__).parents[2] / "examples/yaml_project"


@pytest.fixture
def defs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    """The definitions of a copy of the project, in whose folder the test runs."""
    root = tmp_path / "yaml_project"
    shutil.copytree(PROJECT, root)
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root / "src")
    try:
        with Sandbox(catalogs={"northpeak": 230, "strada": 120}) as shops:
            for name in ("OCTOGEN_PLATFORM_API_KEY", "OCTOGEN_BASE_URL"):
                monkeypatch.setenv(name, shops.environment[name])
            yield dg.load_from_defs_folder(path_within_project=root / "src")
    finally:
        for module in [name for name in sys.modules if name.split(".")[0] == "yaml_project"]:
            del sys.modules[module]


def materialize(
    defs: dg.Definitions, instance: dg.DagsterInstance, *assets: str, partition: str | None = None
) -> None:
    job = dg.define_asset_job("job", dg.AssetSelection.assets(*assets))
    merged = dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
    resolved = merged.resolve_job_def("job")
    assert resolved.execute_in_process(instance=instance, partition_key=partition).success


@pytest.mark.long
def test_every_asset_is_materialized(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    materialize(defs, instance, "octogen_catalogs")
    assert set(instance.get_dynamic_partitions("octogen_catalogs")) == {"northpeak", "strada"}
    suffixes = ("", "_history", "_changes", "_details", "_brands")
    followers = [f"octogen_products{suffix}" for suffix in suffixes]
    for asset in followers:
        materialize(defs, instance, asset, partition="northpeak")
    materialize(defs, instance, "dresses")
    today = datetime.now(ZoneInfo("Europe/Berlin")).date().isoformat()
    materialize(defs, instance, "boots_by_day", partition=today)

    assert pl.read_parquet("snapshots/octogen_products/northpeak.parquet").height == 230
    keys = {key.to_user_string() for key in instance.all_asset_keys()}
    assert keys >= {*followers, "octogen_catalogs", "dresses", "boots_by_day"}


def test_the_example_of_an_environment_is_that_of_a_sandbox() -> None:
    lines = (PROJECT / ".env.example").read_text().splitlines()
    assert lines[1:] == [
        f"OCTOGEN_PLATFORM_API_KEY={DEFAULT_API_KEY}",
        f"OCTOGEN_BASE_URL={DEFAULT_BASE_URL}",
    ]
