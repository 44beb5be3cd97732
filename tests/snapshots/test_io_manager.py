import gc
import json
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenPagingError, OctogenSnapshotError
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.assets import build_products_asset
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.resource import OctogenResource
from tests.results import metadata

LETTERS = dg.StaticPartitionsDefinition(["a", "b", "../x", "a/b"])


def frame_of(key: str) -> pl.DataFrame:
    return pl.DataFrame({"key": [key, key], "n": [1, 2]})


def manager(tmp_path: Path, **options: Any) -> ParquetSnapshotIOManager:
    return ParquetSnapshotIOManager(base_dir=str(tmp_path / "snapshots"), **options)


def materialize(
    assets: list[Any], io_manager: Any, *, raise_on_error: bool = True, **options: Any
) -> dg.ExecuteInProcessResult:
    resources = {"io_manager": io_manager, **options.pop("resources", {})}
    return dg.materialize(assets, resources=resources, raise_on_error=raise_on_error, **options)


def files(tmp_path: Path) -> set[str]:
    base = tmp_path / "snapshots"
    return {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}


@dg.asset(partitions_def=LETTERS)
def letters(context: dg.AssetExecutionContext) -> pl.DataFrame:
    return frame_of(context.partition_key)


@pytest.fixture
def stored(tmp_path: Path, instance: dg.DagsterInstance) -> ParquetSnapshotIOManager:
    """An IO manager that holds every partition of `letters`."""
    io_manager = manager(tmp_path)
    for key in LETTERS.get_partition_keys():
        materialize([letters], io_manager, partition_key=key, instance=instance)
    return io_manager


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame])
def test_a_frame_is_loaded_as_it_was_stored(tmp_path: Path, kind: Any) -> None:
    @dg.asset(key_prefix="shop")
    def made() -> kind:
        return kind({"n": [1, 2, 3]})

    @dg.asset(ins={"made": dg.AssetIn(key_prefix="shop")})
    def read(made: kind) -> pl.DataFrame:
        assert isinstance(made, kind)
        loaded: pl.DataFrame = made.lazy().collect()
        return loaded

    result = materialize([made, read], manager(tmp_path))

    assert result.output_for_node("read")["n"].to_list() == [1, 2, 3]
    assert files(tmp_path) == {"shop/made.parquet", "read.parquet"}


def test_partition_keys_stay_inside_the_base_folder(
    tmp_path: Path, stored: ParquetSnapshotIOManager
) -> None:
    assert files(tmp_path) == {
        "letters/a.parquet",
        "letters/b.parquet",
        "letters/%2E%2E%2Fx.parquet",
        "letters/a%2Fb.parquet",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"snapshots"}


def test_one_partition_is_loaded_as_it_was_stored(
    stored: ParquetSnapshotIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=LETTERS)
    def down(letters: pl.DataFrame) -> pl.DataFrame:
        return letters

    result = materialize(
        [letters.to_source_asset(), down], stored, partition_key="a/b", instance=instance
    )
    assert_frame_equal(result.output_for_node("down"), frame_of("a/b"))


@pytest.mark.parametrize("kind", [pl.DataFrame, pl.LazyFrame])
def test_many_partitions_are_a_dict(
    stored: ParquetSnapshotIOManager, instance: dg.DagsterInstance, kind: Any
) -> None:
    @dg.asset
    def down(letters: dict[str, kind]) -> pl.DataFrame:
        assert all(isinstance(frame, kind) for frame in letters.values())
        return pl.DataFrame({"key": list(letters)})

    result = materialize([letters.to_source_asset(), down], stored, instance=instance)
    assert sorted(result.output_for_node("down")["key"]) == sorted(LETTERS.get_partition_keys())


def test_many_partitions_are_one_frame_with_a_partition_column(
    stored: ParquetSnapshotIOManager, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def down(letters: pl.LazyFrame) -> pl.DataFrame:
        return letters.collect()

    frame = materialize(
        [letters.to_source_asset(), down], stored, instance=instance
    ).output_for_node("down")
    assert frame["partition"].to_list() == frame["key"].to_list()
    assert len(frame) == 8


@pytest.mark.parametrize("kind", [dict[str, pl.DataFrame], dict[str, pl.LazyFrame], pl.DataFrame])
def test_exactly_one_partition_is_loaded_like_many(
    tmp_path: Path, instance: dg.DagsterInstance, kind: Any
) -> None:
    one = dg.DynamicPartitionsDefinition(name="one")
    instance.add_dynamic_partitions("one", ["a"])

    @dg.asset(partitions_def=one)
    def single(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return frame_of(context.partition_key)

    @dg.asset
    def down(single: kind) -> pl.DataFrame:
        if isinstance(single, dict):
            assert list(single) == ["a"]
            loaded: pl.DataFrame = single["a"].lazy().collect()
            return loaded.with_columns(partition=pl.lit("a"))
        assert isinstance(single, pl.DataFrame)
        return single

    io_manager = manager(tmp_path)
    materialize([single], io_manager, partition_key="a", instance=instance)
    result = materialize([single.to_source_asset(), down], io_manager, instance=instance)
    assert result.output_for_node("down")["partition"].to_list() == ["a", "a"]


def test_a_column_of_the_same_name_is_not_overwritten(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=LETTERS)
    def made(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"partition": [1]})

    @dg.asset(ins={"made": dg.AssetIn(metadata={"allow_missing_partitions": True})})
    def down(made: pl.DataFrame) -> pl.DataFrame:
        return made

    materialize([made], manager(tmp_path), partition_key="a", instance=instance)
    assets = [made.to_source_asset(), down]
    with pytest.raises(OctogenSnapshotError, match="they have a column 'partition' of their own"):
        materialize(assets, manager(tmp_path), instance=instance)
    renamed = manager(tmp_path, partition_column="letter")
    frame = materialize(assets, renamed, instance=instance).output_for_node("down")
    assert frame.to_dicts() == [{"partition": 1, "letter": "a"}]


def test_a_partition_other_than_the_run_s_own_has_the_partition_column(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    one = dg.StaticPartitionsDefinition(["a"])

    @dg.asset(partitions_def=one)
    def made(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return frame_of("a")

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(["x"]),
        ins={"made": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())},
    )
    def down(made: pl.DataFrame) -> pl.DataFrame:
        return made

    io_manager = manager(tmp_path)
    materialize([made], io_manager, partition_key="a", instance=instance)
    assets = [made.to_source_asset(), down]
    result = materialize(assets, io_manager, partition_key="x", instance=instance)
    assert result.output_for_node("down")["partition"].to_list() == ["a", "a"]


def test_partition_dimensions_are_folders_in_the_order_of_their_names(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    both = dg.MultiPartitionsDefinition(
        {"day": dg.StaticPartitionsDefinition(["mon"]), "catalog": LETTERS}
    )

    @dg.asset(partitions_def=both)
    def made(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return frame_of("x")

    key = dg.MultiPartitionKey({"day": "mon", "catalog": "../x"})
    materialize([made], manager(tmp_path), partition_key=key, instance=instance)
    assert files(tmp_path) == {"made/%2E%2E%2Fx/mon.parquet"}


def test_a_partition_without_a_snapshot_is_an_error_unless_allowed(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    io_manager = manager(tmp_path)
    materialize([letters], io_manager, partition_key="a", instance=instance)

    @dg.asset
    def strict(letters: dict[str, pl.DataFrame]) -> None:
        raise AssertionError("not reached")

    @dg.asset(ins={"letters": dg.AssetIn(metadata={"allow_missing_partitions": True})})
    def lenient(letters: dict[str, pl.DataFrame]) -> pl.DataFrame:
        return pl.DataFrame({"key": list(letters)})

    source = letters.to_source_asset()
    with pytest.raises(
        OctogenSnapshotError,
        match=r"snapshot of letters, partition '.*' does not exist \(.*\.parquet",
    ):
        materialize([source, strict], io_manager, instance=instance)
    result = materialize([source, lenient], io_manager, instance=instance)
    assert result.output_for_node("lenient")["key"].to_list() == ["a"]


def test_a_scan_is_described_by_the_metadata_of_its_materialization(
    tmp_path: Path, shops: Sandbox, octogen: OctogenResource
) -> None:
    shops.inject(Fault("unknown_fields"))

    @dg.asset
    def products(octogen: OctogenResource) -> Any:
        return octogen.scan(ProductSearch(catalogs=["northpeak"], price_min=1))

    result = materialize([products], manager(tmp_path), resources={"octogen": octogen})
    path = tmp_path / "snapshots" / "products.parquet"
    frame = pl.read_parquet(path)
    shown = metadata(result, "products")

    assert shown["dagster/row_count"] == len(frame)
    assert shown["dagster/uri"] == str(path)
    assert shown["octogen/file_size_bytes"] == path.stat().st_size
    assert shown["octogen/pages"] == shown["octogen/charged_requests"] == 3
    assert shown["octogen/requests"] == len(shops.requests)
    assert (shown["octogen/retries"], shown["octogen/repeats_removed"]) == (0, 0)
    assert shown["octogen/rate_limit_wait_seconds"] == 0
    assert shown["octogen/rows_per_second"] > 0
    assert shown["octogen/unknown_fields"] >= 100  # of the first page of each walk
    assert shown["octogen/truncated"] is False
    assert shown["octogen/search"]["catalogs"] == ["northpeak"]
    assert {shown["octogen/first_request_id"], shown["octogen/last_request_id"]} <= {
        request.request_id for request in shops.requests
    }
    assert shown["octogen/null_share_current_price"] == 0
    brands = frame["brand"].struct.field("name")
    assert shown["octogen/null_share_brand"] == round(brands.null_count() / len(frame), 4)
    assert shown["octogen/price_p50_no_currency"] == round(
        frame["current_price"].quantile(0.5) or 0, 4
    )
    columns = {column.name: column for column in shown["dagster/column_schema"].columns}
    assert list(columns) == list(PRODUCT_SCHEMA)
    assert all(column.description for column in columns.values())
    assert shown["octogen/preview"].startswith("| title | brand | current_price |")
    assert len(shown["octogen/preview"].splitlines()) == 7


def test_the_file_records_its_run_asset_and_search(
    tmp_path: Path, octogen: OctogenResource
) -> None:
    @dg.asset
    def products(octogen: OctogenResource) -> Any:
        return octogen.scan(ProductSearch(q="jacket"))

    result = materialize([products], manager(tmp_path), resources={"octogen": octogen})
    provenance = pl.read_parquet_metadata(tmp_path / "snapshots" / "products.parquet")

    assert provenance["octogen.run_id"] == result.run_id
    assert provenance["octogen.asset_key"] == "products"
    assert provenance["octogen.schema_version"] == "1"
    assert json.loads(provenance["octogen.search"])["q"] == "jacket"
    assert provenance["octogen.fetched_at"].startswith("20")


def test_an_empty_result_is_a_snapshot_with_the_whole_schema(
    tmp_path: Path, octogen: OctogenResource
) -> None:
    @dg.asset
    def products(octogen: OctogenResource) -> Any:
        return octogen.scan(ProductSearch(q="zzzzzz"))

    result = materialize([products], manager(tmp_path), resources={"octogen": octogen})
    frame = pl.read_parquet(tmp_path / "snapshots" / "products.parquet")
    assert frame.is_empty()
    assert frame.schema == PRODUCT_SCHEMA
    assert metadata(result, "products")["dagster/row_count"] == 0


@pytest.mark.parametrize("first", [True, False])
def test_a_failed_read_leaves_the_existing_files_unchanged(
    tmp_path: Path, shops: Sandbox, octogen: OctogenResource, first: bool
) -> None:
    @dg.asset
    def products(octogen: OctogenResource) -> Any:
        return octogen.scan(ProductSearch(catalogs=["northpeak"], page_size=20))

    def run(**options: Any) -> dg.ExecuteInProcessResult:
        return materialize([products], manager(tmp_path), resources={"octogen": octogen}, **options)

    if not first:
        run()
    before = {name: (tmp_path / "snapshots" / name).read_bytes() for name in files(tmp_path)}
    shops.inject(Fault("loop_cursor", page=8))

    with pytest.raises(OctogenPagingError, match="page 8"):
        run()
    after = {name: (tmp_path / "snapshots" / name).read_bytes() for name in files(tmp_path)}
    assert after == before
    assert len(after) == (0 if first else 1)


def test_a_failed_frame_leaves_the_existing_snapshot_unchanged(tmp_path: Path) -> None:
    class Numbers(dg.Config):
        last: str

    @dg.asset
    def made(config: Numbers) -> pl.LazyFrame:
        numbers = pl.LazyFrame({"n": ["1", "2", config.last]})
        return numbers.with_columns(pl.col("n").cast(pl.Int64))

    def run(last: str) -> None:
        config = {"ops": {"made": {"config": {"last": last}}}}
        materialize([made], manager(tmp_path), run_config=config)

    run("3")
    with pytest.raises(pl.exceptions.InvalidOperationError):
        run("x")
    assert files(tmp_path) == {"made.parquet"}
    assert pl.read_parquet(tmp_path / "snapshots" / "made.parquet")["n"].to_list() == [1, 2, 3]


@pytest.mark.parametrize("value", [{"n": [1]}, None, "text"])
def test_a_value_that_is_no_frame_is_refused(tmp_path: Path, value: Any) -> None:
    @dg.asset
    def made() -> Any:
        return value

    with pytest.raises(
        TypeError, match=r"Asset made returned .*, which cannot be stored as a snapshot"
    ):
        materialize([made], manager(tmp_path))


def test_a_base_dir_that_cannot_be_written_is_an_error_before_the_read(
    tmp_path: Path, shops: Sandbox, octogen: OctogenResource
) -> None:
    (tmp_path / "snapshots").write_text("a file where the folder should be")

    @dg.asset
    def products(octogen: OctogenResource) -> Any:
        return octogen.scan(ProductSearch(catalogs=["northpeak"]))

    with pytest.raises(OctogenSnapshotError, match=r"cannot be written to .*snapshots.*base_dir"):
        materialize([products], manager(tmp_path), resources={"octogen": octogen})
    assert shops.requests == []


def test_an_empty_base_dir_is_an_error(tmp_path: Path) -> None:
    @dg.asset
    def made() -> pl.DataFrame:
        return frame_of("a")

    with pytest.raises(ValueError, match="base_dir must not be empty"):
        materialize([made], ParquetSnapshotIOManager(base_dir=" "))


def test_foreign_files_among_the_saved_pages_fail_no_run(
    tmp_path: Path, octogen: OctogenResource
) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["strada"]))
    (tmp_path / ".products.pages" / "foreign.pages").mkdir(parents=True)
    io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
    resources = {"octogen": octogen, "io_manager": io_manager}
    assert dg.materialize([products], resources=resources).success


def test_the_threads_that_save_pages_end(tmp_path: Path, octogen: OctogenResource) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["strada"], page_size=2))
    io_manager = ParquetSnapshotIOManager(base_dir=str(tmp_path))
    others = set(threading.enumerate())
    for _ in range(3):
        dg.materialize([products], resources={"octogen": octogen, "io_manager": io_manager})
    gc.collect()
    deadline = time.monotonic() + 20
    while saving := [
        each for each in set(threading.enumerate()) - others if "octogen-save" in each.name
    ]:
        assert time.monotonic() < deadline, saving
        saving[0].join(1)
