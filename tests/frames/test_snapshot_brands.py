"""The brands of a published snapshot."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.snapshot_brands import SnapshotBrands

BRAND = pl.Struct({"name": pl.String, "slug": pl.String})
SNAPSHOT = pl.DataFrame(
    {
        "uuid": ["1", "2", "3", "4", "5", "6"],
        "product_url": ["/1", "/2", "/3", "/4", "/5", "/6"],
        "catalog_key": ["acme", "ACME", "acme", "zen", None, "acme"],
        "brand": [{"name": name} for name in ("North", "North", "Zen", "Zen", "Lost")] + [None],
    },
    schema_overrides={"brand": BRAND},
)


def brands_of(frame: pl.LazyFrame | None) -> tuple[SnapshotBrands, list[str]]:
    lines: list[str] = []
    return SnapshotBrands(lambda: frame, lines.append), lines


def test_brands_are_counted_by_catalog_whatever_the_case_of_its_key(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.parquet"
    SNAPSHOT.write_parquet(path)
    brands, lines = brands_of(pl.scan_parquet(path))
    assert brands.exists
    assert brands.brands("acme") == {"North": 2, "Zen": 1}
    assert brands.rows("Acme") == 4
    assert brands.rows("zen") == 1
    assert brands.brands("other") == {}
    assert brands.rows("other") == 0
    assert lines == []


def test_without_a_snapshot_nothing_is_known() -> None:
    brands, lines = brands_of(None)
    assert not brands.exists
    assert brands.brands("acme") == {}
    assert lines == []


@pytest.mark.parametrize("frame", [pl.LazyFrame({"uuid": ["1"]}), pl.LazyFrame({"brand": [1]})])
def test_a_snapshot_of_another_shape_is_a_warning(frame: pl.LazyFrame) -> None:
    brands, lines = brands_of(frame)
    assert brands.rows("acme") == 0
    (line,) = lines
    assert line.startswith("The brands of the latest snapshot are not known, since it cannot be")


def test_a_snapshot_that_cannot_be_opened_is_a_warning() -> None:
    def latest() -> pl.LazyFrame:
        raise OctogenSnapshotError("The snapshot is damaged.")

    lines: list[str] = []
    brands = SnapshotBrands(latest, lines.append)
    assert not brands.exists
    assert brands.rows("acme") == 0
    (line,) = lines
    assert line.endswith("The snapshot is damaged.")
