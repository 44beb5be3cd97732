"""Delta tables are written from the frame of a scan, as docs/io-managers.md says."""

from __future__ import annotations

import logging
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[2] / "docs/io-managers.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
CATALOGS = {"northpeak": 30, "zen": 20}


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A sandbox in the environment, and a folder; dagster-delta changes the root logger."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.chdir(tmp_path)
    with Sandbox(catalogs=CATALOGS) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        yield
    root.setLevel(level)


def run(
    word: str, instance: dg.DagsterInstance, *assets: str, partition: str | None = None
) -> None:
    """Materialize assets of the block that has a word."""
    [block] = [each for each in BLOCKS if word in each]
    Path("definitions.py").write_text(block)
    defs = runpy.run_path("definitions.py")["defs"]
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in assets],
        partition_key=partition,
    )


def read(table: str) -> pl.DataFrame:
    return pl.read_delta(f"lake/public/{table}")


def test_dagster_delta_replaces_a_partition_and_reads_all(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", list(CATALOGS))
    for key in ["northpeak", "zen", "northpeak"]:
        run("catalog_partitions", instance, "products", partition=key)
    run("catalog_partitions", instance, "brands")
    products, brands = read("products"), read("brands")
    assert dict(products.group_by("catalog_key").len().iter_rows()) == CATALOGS
    assert products["uuid"].is_unique().all()
    assert dict(brands.group_by("catalog_key").agg(pl.col("len").sum()).iter_rows()) == CATALOGS


def test_dagster_deltalake_polars_writes_and_reads_a_table(instance: dg.DagsterInstance) -> None:
    for _ in range(2):
        run("dagster_deltalake_polars", instance, "jackets", "cheap_jackets")
    jackets, cheap = read("jackets"), read("cheap_jackets")
    assert len(jackets) > 0
    assert jackets["uuid"].is_unique().all()
    assert set(cheap["uuid"]) == set(jackets.filter(pl.col("current_price") <= 80)["uuid"])


def test_a_snapshot_and_a_delta_table_live_in_one_project(instance: dg.DagsterInstance) -> None:
    run("ParquetSnapshotIOManager(", instance, "jackets", "prices")
    assert len(read("prices")) == len(pl.read_parquet("snapshots/jackets.parquet")) > 0
