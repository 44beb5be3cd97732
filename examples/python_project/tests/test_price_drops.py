"""Run the pipeline for two simulated days with the sandbox."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from python_project.definitions import defs

from octogen_dagster.sandbox.server import Sandbox

PIPELINE = ["products", "history", "changes", "price_drops"]


def test_price_drops_are_found_on_the_second_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        Sandbox(catalogs={"northpeak": 400}) as sandbox,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        job = defs().resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("octogen_catalogs")])
        for _ in range(2):
            job.execute_in_process(
                instance=instance,
                partition_key="northpeak",
                asset_selection=[dg.AssetKey(name) for name in PIPELINE],
            )
            sandbox.next_day()
    drops = pl.read_parquet("snapshots/price_drops/northpeak.parquet")
    assert len(drops) > 0
    assert drops["saved"].is_between(0, 1, closed="right").all()
