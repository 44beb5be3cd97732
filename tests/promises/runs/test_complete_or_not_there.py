"""A snapshot on a disk is complete or it is not there, and the one before stays until then."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.sandbox.server import Sandbox
from tests.limits import limited
from tests.projects import Project
from tests.promises.paged_service import PagedService
from tests.results import metadata, octogen_at, stored, warnings

TWO_HOURS_AGO = time.time() - 2 * 3600

# Writes some row groups of a snapshot, prints a line, and waits until its input ends.
INTERRUPTED = """
import sys
import dagster as dg
import polars as pl
from polars.io.plugins import register_io_source
from octogen_dagster import ParquetSnapshotIOManager

def batches(with_columns, predicate, n_rows, batch_size):
    for _ in range(4):
        yield pl.DataFrame({"n": range(20_000)})
    print("half", flush=True)
    sys.stdin.read()

frame = register_io_source(batches, schema={"n": pl.Int64})
manager = ParquetSnapshotIOManager(base_dir=sys.argv[1])
manager.handle_output(dg.build_output_context(asset_key="made"), frame)
"""


def publish(folder: Path, frame: pl.DataFrame | pl.LazyFrame) -> None:
    context = dg.build_output_context(asset_key="made")
    od.ParquetSnapshotIOManager(base_dir=str(folder)).handle_output(context, frame)


def load(folder: Path) -> pl.LazyFrame:
    kind = dg.PythonObjectDagsterType(pl.LazyFrame)
    context = dg.build_input_context(asset_key="made", dagster_type=kind)
    frame: pl.LazyFrame = od.ParquetSnapshotIOManager(base_dir=str(folder)).load_input(context)
    return frame


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": 60}).running() as service:
        yield service


PRODUCTS = od.build_products_asset(
    "products", od.ProductSearch(catalogs=["acme"], page_size=5), retry_policy=None
)


def materialize(
    service: PagedService, folder: Path, *assets: dg.AssetsDefinition
) -> dg.ExecuteInProcessResult:
    resources = stored(folder, octogen_at(service))
    return dg.materialize([PRODUCTS, *assets], resources=resources, raise_on_error=False)


def test_a_read_that_fails_leaves_the_snapshot_byte_for_byte(
    service: PagedService, tmp_path: Path
) -> None:
    assert materialize(service, tmp_path).success
    before = (tmp_path / "products.parquet").read_bytes()

    def fail_on_page_7(_key: str, page: int, products: list[dict[str, Any]]) -> None:
        if page == 7:
            products[0]["currentPrice"] = "a lot"

    service.change = fail_on_page_7
    assert not materialize(service, tmp_path).success
    assert (tmp_path / "products.parquet").read_bytes() == before


@pytest.mark.slow
def test_a_killed_writer_leaves_the_snapshot_as_it_was_and_nothing_for_long(tmp_path: Path) -> None:
    publish(tmp_path, pl.DataFrame({"n": [1, 2]}))
    before = (tmp_path / "made.parquet").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert (tmp_path / "made.parquet").read_bytes() == before
    for left in names(tmp_path) - {"made.parquet"}:
        os.utime(tmp_path / left, (TWO_HOURS_AGO, TWO_HOURS_AGO))
    publish(tmp_path, pl.DataFrame({"n": [3]}))
    assert names(tmp_path) == {"made.parquet"}
    assert load(tmp_path).collect()["n"].to_list() == [3]


def test_a_frame_that_was_loaded_does_not_change_when_another_is_published(tmp_path: Path) -> None:
    publish(tmp_path, pl.DataFrame({"n": [1, 2, 3]}))
    frame = load(tmp_path)
    publish(tmp_path, pl.DataFrame({"n": range(50_000)}))
    assert frame.collect()["n"].to_list() == [1, 2, 3]
    assert load(tmp_path).collect().height == 50_000


@pytest.mark.parametrize("times", [1, 30])
def test_a_frame_that_fails_leaves_no_file(tmp_path: Path, times: int) -> None:
    failing = pl.LazyFrame({"n": ["1", "x"]}).with_columns(pl.col("n").cast(pl.Int64))
    for _ in range(times):  # Polars opens a path when it likes, often after the failure
        with pytest.raises(pl.exceptions.InvalidOperationError):
            publish(tmp_path, failing)
    assert names(tmp_path) == set()


def test_a_full_disk_is_an_error_that_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    publish(tmp_path, pl.DataFrame({"n": [1]}))
    message = rf"^Snapshots cannot be written to {tmp_path}: File too large.*published.*base_dir"
    with (
        limited(resource.RLIMIT_FSIZE, 20_000),
        pytest.raises(OctogenSnapshotError, match=message),
    ):
        publish(tmp_path, pl.DataFrame({"n": range(100_000)}))
    assert load(tmp_path).collect()["n"].to_list() == [1]
    assert names(tmp_path) == {"made.parquet"}


@pytest.mark.parametrize(("kind", "make"), [("folder", Path.mkdir), ("FIFO", os.mkfifo)])
def test_anything_but_a_file_at_a_snapshot_s_place_is_an_error_at_once(
    tmp_path: Path, kind: str, make: Any
) -> None:
    make(tmp_path / "made.parquet")
    for use in (lambda: publish(tmp_path, pl.DataFrame({"n": [1]})), lambda: load(tmp_path)):
        with pytest.raises(OctogenSnapshotError, match=rf"a {kind}\."):
            use()
    assert names(tmp_path) == {"made.parquet"}


def test_a_folder_that_cannot_be_written_to_is_an_error_before_the_read(
    service: PagedService, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert not materialize(service, tmp_path / "file").success
    assert service.searches == []


def test_a_file_that_is_no_snapshot_is_named_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "made.parquet").write_bytes(b"no Parquet" * 100)
    with pytest.raises(OctogenSnapshotError, match=r"made\.parquet is not a snapshot or is damag"):
        load(tmp_path)
    publish(tmp_path, pl.DataFrame({"n": [1]}))
    assert load(tmp_path).collect()["n"].to_list() == [1]


@pytest.mark.parametrize("key", ["a/b", "../x", "50% #1?.é", "x[ab]*"])
def test_the_keys_of_partitions_are_taken_literally(tmp_path: Path, key: str) -> None:
    partitions = dg.StaticPartitionsDefinition([key])
    context = dg.build_output_context(
        asset_key="made", partition_key=key, asset_partitions_def=partitions
    )
    folder = tmp_path / "base"
    manager = od.ParquetSnapshotIOManager(base_dir=str(folder))
    manager.handle_output(context, pl.DataFrame({"n": [1]}))
    assert names(tmp_path) == {"base"}
    (file,) = [path for path in folder.rglob("*") if path.is_file()]
    assert file.parent == folder / "made"
    assert pl.read_parquet(file, glob=False)["n"].to_list() == [1]


# What the UI shows of a snapshot never keeps it back.


NO_YEAR_OF_PYTHON = pl.Series([2**60]).cast(pl.Datetime("us"))
"""A time in the year 38504, which Polars stores and Python's datetime cannot hold."""


def test_a_preview_that_fails_is_left_out_of_a_snapshot_that_is_published(project: Project) -> None:
    frame = pl.DataFrame({"n": [1], "until": NO_YEAR_OF_PYTHON})

    @dg.asset
    def prices() -> pl.DataFrame:
        return frame

    result = project.run([prices])
    assert pl.scan_parquet(project.folder / "prices.parquet").select("n").collect()[
        "n"
    ].to_list() == [1]
    shown = metadata(result, "prices")
    assert shown["dagster/row_count"] == 1
    assert [column.name for column in shown["dagster/column_schema"].columns] == ["n", "until"]
    assert "octogen/preview" not in shown
    (warning,) = warnings(project.instance, result)
    assert "preview" in warning
    assert "out of range" in warning


@pytest.mark.parametrize(
    ("broken", "lost"),
    [
        ((dg.MetadataValue, "md"), {"octogen/preview", "octogen/summary"}),
        ((dg.MetadataValue, "timestamp"), {"octogen/fetched_at", "octogen/cost_usd"}),
        ((dg, "TableSchema"), {"dagster/column_schema"}),
        ((pl.Series, "quantile"), {"octogen/prices"}),
        ((pl.LazyFrame, "head"), {"octogen/preview"}),
    ],
    ids=["texts", "metrics for the read", "columns", "metrics for the rows", "panic"],
)
def test_a_paid_snapshot_is_published_although_it_cannot_be_decorated(
    project: Project, monkeypatch: pytest.MonkeyPatch, broken: tuple[object, str], lost: set[str]
) -> None:
    snapshot = project.folder / "products.parquet"

    def fail(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("it broke") if broken[1] == "head" else OSError("no")

    products = od.build_products_asset("products", od.ProductSearch(catalogs=["acme"]))
    with Sandbox(catalogs={"acme": 120}, generation="current") as shops:
        octogen = octogen_at(shops)
        monkeypatch.setattr(*broken, fail)
        result = project.run([products], octogen)
        monkeypatch.undo()
    assert pl.read_parquet(snapshot)["uuid"].n_unique() == 120
    shown = metadata(result, "products")
    assert shown["dagster/row_count"] == 120
    assert not lost & shown.keys()
    assert [line for line in warnings(project.instance, result) if "Could not add the " in line]
    assert not [path for path in project.folder.iterdir() if path != snapshot]
