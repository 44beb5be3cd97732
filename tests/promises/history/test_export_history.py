"""The histories of all catalogs are one Delta table, whatever was exported before."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from octogen_dagster import (
    PRODUCT_SCHEMA,
    ParquetSnapshotIOManager,
    build_product_history_asset,
    export_history,
    forget_snapshot,
    scan_history,
)
from octogen_dagster.errors import OctogenSnapshotError
from tests.histories import ASSET, QUIET, day, make_history, product
from tests.proxy import Proxy
from tests.servers.buckets import S3Bucket

DAYS = {
    day(1): [product("dress", 120.0), product("hat", 20.0)],
    day(2): [product("dress", 96.0), product("hat", 20.0)],
    day(3): [product("dress", 96.0, in_stock=False), product("coat", 200.0)],
}
ZEN = {day(4): [product("dress", None, title=None)]}


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    """A folder with the first day of one catalog and all days of another."""
    folder = tmp_path / "snapshots"
    make_history(folder, {day(1): DAYS[day(1)]})
    make_history(folder, ZEN, catalog="zen")
    return folder


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake/history")


def export(snapshots: Path, lake: str) -> list[str]:
    """Export, and check that the table is the history."""
    merged = export_history(str(snapshots), lake, asset=ASSET)
    order = ["catalog_key", "uuid", "valid_from"]
    history = scan_history(str(snapshots), asset=ASSET).cast({"change": pl.String})
    assert pl.read_delta(lake).sort(order).equals(history.sort(order).collect())
    return merged


@pytest.mark.slow
def test_rows_are_merged_and_closed(snapshots: Path, lake: str) -> None:
    assert export(snapshots, lake) == ["acme", "zen"]
    make_history(snapshots, DAYS)
    assert export(snapshots, lake) == ["acme"]
    assert DeltaTable(lake).metadata().partition_columns == ["catalog_key"]
    current = pl.read_delta(lake).filter(pl.col("catalog_key") == "acme", "is_current")
    assert sorted(current.get_column("uuid")) == ["coat", "dress"]


@pytest.mark.slow
def test_an_export_that_is_repeated_commits_nothing(snapshots: Path, lake: str) -> None:
    export(snapshots, lake)
    version = DeltaTable(lake).version()
    assert export(snapshots, lake) == []
    assert DeltaTable(lake).version() == version


@pytest.mark.slow
def test_a_day_without_changes_is_merged_once(snapshots: Path, lake: str) -> None:
    export(snapshots, lake)
    make_history(snapshots, {day(2): DAYS[day(1)]})
    assert export(snapshots, lake) == ["acme"]
    assert export(snapshots, lake) == []


@pytest.mark.slow
def test_what_is_forgotten_is_deleted(snapshots: Path, lake: str) -> None:
    make_history(snapshots, DAYS)
    export(snapshots, lake)
    for time in DAYS:
        forget_snapshot(str(snapshots), time, asset=ASSET)
        assert "acme" in export(snapshots, lake)
    assert set(pl.read_delta(lake).get_column("catalog_key")) == {"zen"}


@pytest.mark.slow
def test_a_late_day_is_slotted_in(snapshots: Path, lake: str) -> None:
    make_history(snapshots, {day(3): DAYS[day(3)]})
    export(snapshots, lake)
    make_history(snapshots, {day(2): DAYS[day(2)]})
    assert export(snapshots, lake) == ["acme"]


def test_an_export_that_failed_goes_on_where_it_was(snapshots: Path, lake: str) -> None:
    zen = snapshots / ASSET / "zen.parquet"
    whole = zen.read_bytes()
    zen.write_bytes(b"damaged")
    with pytest.raises(OctogenSnapshotError, match="is not a snapshot or is damaged"):
        export_history(str(snapshots), lake, asset=ASSET)
    assert not Path(lake).exists()
    zen.write_bytes(whole[:8] + bytes(200) + whole[208:])  # its footer is whole
    with pytest.raises(OctogenSnapshotError, match="could not be exported to"):
        export_history(str(snapshots), lake, asset=ASSET)
    assert set(pl.read_delta(lake).get_column("catalog_key")) == {"acme"}
    zen.write_bytes(whole)
    assert export(snapshots, lake) == ["zen"]


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_export_goes_on_where_it_was(snapshots: Path, lake: str) -> None:
    acme = snapshots / ASSET / "acme.parquet"
    frame, metadata = pl.read_parquet(acme), pl.read_parquet_metadata(acme)
    for name in [f"shop-{number}" for number in range(30)]:
        shop = frame.with_columns(catalog_key=pl.lit(name))
        of_shop = {key: text.replace('"acme"', f'"{name}"') for key, text in metadata.items()}
        shop.write_parquet(acme.with_name(f"{name}.parquet"), metadata=of_shop)
    call = f"export_history({str(snapshots)!r}, {lake!r}, asset={ASSET!r})"
    program = f"from octogen_dagster import export_history; {call}"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while len(list(Path(lake).glob("_delta_log/*.json"))) < 4:
            assert process.poll() is None, "it ended before it could be killed"
        process.kill()
    merged = export(snapshots, lake)
    assert 0 < len(merged) <= 32 - 2


def test_a_table_that_cannot_be_written_is_an_error(snapshots: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OctogenSnapshotError, match=r"could not be exported to .*/file/history: "):
        export_history(str(snapshots), str(tmp_path / "file/history"), asset=ASSET)


def test_a_table_of_other_columns_is_an_error(snapshots: Path, lake: str) -> None:
    pl.DataFrame({"uuid": ["1"]}).write_delta(lake)
    with pytest.raises(OctogenSnapshotError, match=r"is not of a history: it has no columns cat"):
        export_history(str(snapshots), lake, asset=ASSET)
    assert DeltaTable(lake).version() == 0


@pytest.mark.slow
def test_a_row_without_a_catalog_is_inserted_once(snapshots: Path, lake: str) -> None:
    file = snapshots / ASSET / "acme.parquet"
    for number in (1, 2):
        make_history(snapshots, {day(number): DAYS[day(1)]})
        metadata = pl.read_parquet_metadata(file)
        rows = pl.read_parquet(file)
        without = rows.with_columns(catalog_key=pl.lit(None, pl.String))
        without.write_parquet(file, metadata=metadata)
        assert "acme" in export_history(str(snapshots), lake, asset=ASSET)
        rows.write_parquet(file, metadata=metadata)
    assert sorted(pl.read_delta(lake).filter(catalog_key="acme")["uuid"]) == ["dress", "hat"]


@pytest.mark.slow
def test_a_catalog_without_a_file_keeps_its_rows_and_is_named(
    snapshots: Path, lake: str, caplog: pytest.LogCaptureFixture
) -> None:
    export(snapshots, lake)
    assert not caplog.messages
    (snapshots / ASSET / "zen.parquet").unlink()
    assert export_history(str(snapshots), lake, asset=ASSET) == []
    [warning] = caplog.messages
    assert f"The table {lake} keeps the rows of 1 catalog of which" in warning
    assert ": zen. Delete" in warning
    assert "zen" in pl.read_delta(lake)["catalog_key"]


@pytest.mark.slow
def test_snapshots_and_table_may_be_in_a_bucket(snapshots: Path, s3: Proxy) -> None:
    bucket = S3Bucket(s3)
    options = bucket.options | {
        "aws_access_key_id": "AKIDTESTKEY",
        "aws_secret_access_key": "wJalrXUtnFEMI",
        # Not the proxy, a thread of this process: the library holds the interpreter while it waits.
        "aws_endpoint_url": f"http://127.0.0.1:{s3.upstream}",
    }
    for name in ("acme", "zen"):
        key = f"{ASSET}/{name}.parquet"
        bucket.put(f"snapshots/{key}", (snapshots / key).read_bytes())
    base_dir, lake = (f"s3://{bucket.name}/{name}" for name in ("snapshots", "lake"))
    merged = export_history(base_dir, lake, asset=ASSET, storage_options=options)
    assert merged == ["acme", "zen"]
    assert export_history(base_dir, lake, asset=ASSET, storage_options=options) == []
    assert any(name.startswith("lake/catalog_key=zen/") for name in bucket.names())


@pytest.mark.slow
def test_a_bucket_that_is_not_reached_is_an_error_on_one_line(snapshots: Path) -> None:
    options = {
        "aws_access_key_id": "AKIDTESTKEY",
        "aws_secret_access_key": "wJalrXUtnFEMI",
        "aws_endpoint_url": "http://127.0.0.1:9",
        "aws_allow_http": True,
        "aws_region": "us-east-1",
    }
    with pytest.raises(OctogenSnapshotError) as caught:
        export_history(str(snapshots), "s3://b/lake", asset=ASSET, storage_options=options)
    text = str(caught.value)
    assert re.search(
        r"exported to s3://b/lake: Generic S3 error: .*refused \(os error \d+\)\. ", text
    )
    assert not any(secret in text for secret in ("AKIDTESTKEY", "wJalrXUtnFEMI", "\x1b", "?list"))


def test_without_a_history_there_is_no_table(tmp_path: Path, lake: str) -> None:
    with pytest.raises(OctogenSnapshotError, match="There is no history"):
        export_history(str(tmp_path), lake, asset=ASSET)
    assert not Path(lake).exists()


def make_departments(folder: Path, prices: Mapping[datetime, Mapping[str, float]]) -> None:
    """Store the departments of one shop as partitions of an asset of one's own."""
    departments = ["men", "women"]
    remaining = iter([(time, key) for time in prices for key in departments])

    @dg.asset(name="octogen_products", partitions_def=dg.StaticPartitionsDefinition(departments))
    def products() -> pl.DataFrame:
        time, key = next(remaining)
        rows = [product(f"{key}-{number}", prices[time][key] + number) for number in range(20)]
        frame = pl.DataFrame(rows).with_columns(catalog_key=pl.lit("Acme"), fetched_at=pl.lit(time))
        none = pl.DataFrame(schema=PRODUCT_SCHEMA)
        return pl.concat([none, frame], how="diagonal_relaxed").cast(PRODUCT_SCHEMA)

    for key in departments * len(prices):
        dg.materialize(
            [products, build_product_history_asset(products)],
            partition_key=key,
            resources={"io_manager": ParquetSnapshotIOManager(base_dir=str(folder))},
            run_config=QUIET,
        )


@pytest.mark.slow
def test_files_that_share_a_catalog_keep_their_rows(tmp_path: Path, lake: str) -> None:
    make_departments(tmp_path, {day(1): {"men": 100.0, "women": 200.0}})
    assert export(tmp_path, lake) == ["men", "women"]
    assert pl.read_delta(lake).height == 40
    assert export(tmp_path, lake) == []
    make_departments(tmp_path, {day(2): {"men": 100.0, "women": 150.0}})
    assert export(tmp_path, lake) == ["men", "women"]
    assert pl.read_delta(lake).filter("is_current").height == 40
    forget_snapshot(str(tmp_path), day(2), asset=ASSET)
    export(tmp_path, lake)


def test_a_product_in_two_files_is_an_error_that_names_them(tmp_path: Path, lake: str) -> None:
    make_departments(tmp_path, {day(1): {"men": 100.0, "women": 200.0}})
    shutil.copy(tmp_path / ASSET / "men.parquet", tmp_path / ASSET / "women.parquet")
    with pytest.raises(
        OctogenSnapshotError, match=r"The product men-\d+ of the catalog Acme is in"
    ):
        export_history(str(tmp_path), lake, asset=ASSET)
    assert pl.read_delta(lake).is_empty()


@pytest.mark.long
@pytest.mark.slow
def test_a_column_that_somebody_added_to_the_table_stays(snapshots: Path, lake: str) -> None:
    export_history(str(snapshots), lake, asset=ASSET)
    DeltaTable(lake).alter.add_columns(Field("note", PrimitiveType("string")))
    DeltaTable(lake).update({"note": "'ours'"})
    make_history(snapshots, DAYS)
    make_history(snapshots, {day(5): ZEN[day(4)]}, catalog="zen")  # nothing of it differs
    assert export_history(str(snapshots), lake, asset=ASSET) == ["acme", "zen"]
    history = scan_history(str(snapshots), asset=ASSET).cast({"change": pl.String}).collect()
    order = ["catalog_key", "uuid", "valid_from"]
    table = pl.read_delta(lake).sort(order)
    assert table.drop("note").equals(history.sort(order))
    assert table["note"].drop_nulls().to_list() == ["ours"] * 3
    assert export_history(str(snapshots), lake, asset=ASSET) == []


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("then", ["nothing", "another day"])
def test_a_table_that_was_restored_is_brought_up_to_date(
    snapshots: Path, lake: str, then: str
) -> None:
    export(snapshots, lake)
    version = DeltaTable(lake).version()
    make_history(snapshots, DAYS)
    export(snapshots, lake)
    DeltaTable(lake).restore(version)
    if then == "another day":
        make_history(snapshots, {day(6): DAYS[day(1)]})
    assert "acme" in export(snapshots, lake)
    assert export(snapshots, lake) == []
