"""Tests of OctogenComponent: a YAML file is a whole deployment that runs."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.components.projects import load


@pytest.fixture(autouse=True)
def _environment(shops: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", shops.api_key)
    monkeypatch.setenv("MY_URL", shops.base_url)


CONNECTION = {"api_key": "{{ env.MY_KEY }}", "base_url": "{{ env.MY_URL }}", "attempts": 2}


def run(
    defs: dg.Definitions, instance: dg.DagsterInstance, *keys: str, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    job = defs.get_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(key.split("/")) for key in keys],
        partition_key=partition,
    )


def test_whole_catalogs_and_what_follows_them_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    attributes = {
        "connection": CONNECTION,
        "storage": {"base_dir": str(tmp_path)},
        "searches": [
            {
                "name": "octogen_products",
                "partitions": "catalog",
                "changes": True,
                "details": {"only_changed": True},
                "brands": True,
                "schedule": {"cron": "0 3 * * 0", "timezone": "Europe/Berlin"},
            }
        ],
    }
    with load(attributes) as (_, defs):
        run(defs, instance, "octogen_catalogs")
        assert instance.get_dynamic_partitions("octogen_catalogs") == ["northpeak", "strada"]
        followers = [f"octogen_products{end}" for end in ("", "_changes", "_details", "_brands")]
        run(defs, instance, *followers, partition="strada")
        assert {sensor.name for sensor in defs.sensors or ()} == {"octogen_products_catalog_sensor"}
        assert {schedule.name for schedule in defs.schedules or ()} == {"octogen_products_schedule"}
    rows = {
        path.relative_to(tmp_path).as_posix(): len(pl.read_parquet(path))
        for path in tmp_path.rglob("*.parquet")
    }
    assert rows["octogen_products/strada.parquet"] == 120
    assert rows["octogen_products_details/strada.parquet"] == 120
    assert rows.keys() == {
        "octogen_catalogs.parquet",
        *(f"{name}/strada.parquet" for name in followers),
    }
