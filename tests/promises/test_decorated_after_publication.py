"""What the UI shows of a snapshot is made after its publication, and never keeps it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
)
from octogen_dagster.sandbox.server import Sandbox

NO_YEAR_OF_PYTHON = pl.Series([2**60]).cast(pl.Datetime("us"))
"""A time in the year 38504, which Polars stores and Python's datetime cannot hold."""


def warnings(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(run_id) if entry.level == 30]


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(node)
    return {name: entry.value for name, entry in event.metadata.items()}


def test_a_preview_that_fails_is_left_out_of_a_snapshot_that_is_published(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    frame = pl.DataFrame({"n": [1], "until": NO_YEAR_OF_PYTHON})

    @dg.asset
    def prices() -> pl.DataFrame:
        return frame

    io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
    result = dg.materialize([prices], resources={"io_manager": io_manager}, instance=instance)
    assert pl.scan_parquet(tmp_path / "prices.parquet").select("n").collect()["n"].to_list() == [1]
    shown = metadata(result, "prices")
    assert shown["dagster/row_count"] == 1
    assert [column.name for column in shown["dagster/column_schema"].columns] == ["n", "until"]
    assert "octogen/preview" not in shown
    (warning,) = warnings(instance, result.run_id)
    assert "preview" in warning
    assert "out of range" in warning


@pytest.mark.parametrize(
    ("broken", "lost"),
    [
        ((dg.MetadataValue, "md"), {"octogen/preview", "octogen/shops"}),
        ((dg.MetadataValue, "timestamp"), {"octogen/fetched_at", "octogen/cost_usd"}),
        ((dg, "TableSchema"), {"dagster/column_schema"}),
        ((pl.Series, "quantile"), {"octogen/null_share_brand"}),
        ((pl.LazyFrame, "group_by"), {"octogen/shops"}),
    ],
    ids=["texts", "figures of the read", "columns", "figures of the rows", "panic"],
)
def test_a_paid_snapshot_is_published_before_it_is_decorated(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    broken: tuple[object, str],
    lost: set[str],
) -> None:
    snapshot = tmp_path / "products.parquet"
    published: list[bool] = []

    def fail(*_: object, **__: object) -> None:
        published.append(snapshot.exists())
        raise pl.exceptions.PanicException("it broke") if broken[1] == "group_by" else OSError("no")

    products = build_products_asset("products", ProductSearch(catalogs=["acme"]))
    with Sandbox(catalogs={"acme": 120}, generation="current") as shops:
        octogen = OctogenResource(api_key=shops.api_key, base_url=shops.base_url)
        io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
        monkeypatch.setattr(*broken, fail)
        result = dg.materialize(
            [products],
            resources={"octogen": octogen, "io_manager": io_manager},
            instance=instance,
        )
        monkeypatch.undo()
    assert published
    assert all(published)
    assert pl.read_parquet(snapshot)["uuid"].n_unique() == 120
    shown = metadata(result, "products")
    assert shown["dagster/row_count"] == 120
    assert not lost & shown.keys()
    assert [line for line in warnings(instance, result.run_id) if "left out" in line]
    assert not [path for path in tmp_path.iterdir() if path != snapshot]
