"""The sandbox plays the service of today unless an older one is asked for."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import httpx
import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]


def statuses(environment: Mapping[str, str]) -> dict[str, int]:
    """The statuses of the list of catalogs that the older service has, and of its successor."""
    headers = {"Authorization": f"Bearer {environment['OCTOGEN_PLATFORM_API_KEY']}"}
    base_url = environment["OCTOGEN_BASE_URL"]
    paths = ("/catalogs", "/domains/northpeak.example")
    return {path: httpx.get(base_url + path, headers=headers).status_code for path in paths}


TODAY = {"/catalogs": 404, "/domains/northpeak.example": 200}
OLDER = {"/catalogs": 200, "/domains/northpeak.example": 404}


def test_the_sandbox_of_a_test_is_the_service_of_today() -> None:
    with Sandbox(catalogs=2, products=1) as sandbox:
        assert statuses(sandbox.environment) == TODAY
        assert sandbox.environment["OCTOGEN_SHOPS"] == "harborandpine.example,northpeak.example"
    with Sandbox(catalogs=2, products=1, generation="seed") as older:
        assert statuses(older.environment) == OLDER


def test_the_code_location_of_the_checkout_reads_the_sandbox(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Sandbox(catalogs=2, products=30) as sandbox:
        for name, value in {**sandbox.environment, "OCTOGEN_ENV": "sandbox"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OCTOGEN_SNAPSHOTS", str(tmp_path))
        defs = runpy.run_path(str(ROOT / "definitions.py"))["defs"]
        job = defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("octogen_catalogs")])
        job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("octogen_products")],
            partition_key="northpeak",
        )
    assert pl.read_parquet(tmp_path / "octogen_products/northpeak.parquet").height == 30
