"""Partitions as one frame or a dict, and what the metadata of a stored scan says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, ProductSearch
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.results import figures, metadata

LETTERS = dg.StaticPartitionsDefinition(["a", "b", "../x", "a/b"])


def frame_of(key: str) -> pl.DataFrame:
    return pl.DataFrame({"key": [key, key], "n": [1, 2]})


def manager(tmp_path: Path, **options: Any) -> ParquetSnapshotIOManager:
    return ParquetSnapshotIOManager(base_dir=str(tmp_path / "snapshots"), **options)


class PositionalManager(ParquetSnapshotIOManager):
    """The manager of a user who gives the folder without its name."""

    def __init__(self, base_dir: Any = "snapshots", **settings: Any) -> None:
        super().__init__(base_dir=base_dir, **settings)


def materialize(
    assets: list[Any], io_manager: Any, *, raise_on_error: bool = True, **options: Any
) -> dg.ExecuteInProcessResult:
    resources = {"io_manager": io_manager, **options.pop("resources", {})}
    return dg.materialize(assets, resources=resources, raise_on_error=raise_on_error, **options)


@dg.asset(partitions_def=LETTERS)
def letters(context: dg.AssetExecutionContext) -> pl.DataFrame:
    return frame_of(context.partition_key)


@pytest.mark.parametrize(
    ("build", "config", "folder"),
    [
        (PositionalManager, {}, "snapshots"),
        (lambda: PositionalManager("chosen"), {}, "chosen"),
        (lambda: PositionalManager(dg.EnvVar("FOLDER")), {}, "chosen"),
        (PositionalManager.configure_at_launch, {"config": {"base_dir": "chosen"}}, "chosen"),
    ],
)
def test_a_subclass_may_take_settings_by_position(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[], Any],
    config: dict[str, Any],
    folder: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOLDER", "chosen")
    run_config = {"resources": {"io_manager": config}}
    materialize([letters], build(), partition_key="a", run_config=run_config)
    assert [each.name for each in tmp_path.iterdir()] == [folder]


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


@pytest.mark.slow
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
    with pytest.raises(OctogenSnapshotError, match=r"column 'partition'.*partition_column"):
        materialize(assets, manager(tmp_path), instance=instance)
    renamed = manager(tmp_path, partition_column="letter")
    frame = materialize(assets, renamed, instance=instance).output_for_node("down")
    assert frame.to_dicts() == [{"partition": 1, "letter": "a"}]


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


MANY = dg.StaticPartitionsDefinition([str(number) for number in range(101)])
"""More partitions than a frame keeps files open."""


def test_a_frame_of_many_partitions_is_not_of_two_states(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "many"
    folder.mkdir(parents=True)
    for key in MANY.get_partition_keys():
        pl.DataFrame({"n": [1]}).write_parquet(folder / f"{key}.parquet")

    def read_twice(frame: pl.LazyFrame) -> None:
        assert frame.select("n").unique().collect().height == 1
        pl.DataFrame({"n": [2] * 1000}).write_parquet(folder / "new")
        (folder / "new").replace(folder / "7.parquet")
        with pytest.raises(
            OctogenSnapshotError,
            match=r"7\.parquet was replaced while it was being read\. Try again",
        ):
            frame.collect()

    @dg.asset
    def one(many: dict[str, pl.LazyFrame]) -> None:
        read_twice(many["7"])
        pl.DataFrame({"n": [1]}).write_parquet(folder / "7.parquet")

    @dg.asset(deps=[one])
    def all_of_them(many: pl.LazyFrame) -> None:
        read_twice(many)

    many = dg.AssetSpec("many", partitions_def=MANY)
    assert materialize([many, one, all_of_them], manager(tmp_path)).success


@pytest.mark.slow
@pytest.mark.timeout(120, method="thread")
def test_more_frames_in_a_query_than_polars_has_threads_for_are_an_error(tmp_path: Path) -> None:
    names = [str(number) for number in range(600)]
    folder = tmp_path / "snapshots" / "many"
    folder.mkdir(parents=True)
    for name in names:
        frame_of(name).write_parquet(folder / f"{name}.parquet")

    @dg.asset
    def down(many: dict[str, pl.LazyFrame]) -> None:
        frames = list(many.values())
        few = pl.concat(frames[:150]).select(pl.len())
        for _ in range(2):
            assert few.collect(engine="streaming").item() == 300
        assert all(each.filter(pl.col("n") > 0).head(1).collect().height for each in frames)
        (folder / "7.parquet").unlink()
        with pytest.raises(
            OctogenSnapshotError, match=r"7\.parquet was deleted while it was being read"
        ):
            many["7"].collect()
        # At the end: Polars may still execute others of these when one has failed.
        with pytest.raises(OctogenSnapshotError, match=r"pl\.LazyFrame"):
            pl.concat(frames[8:]).select(pl.len()).collect(engine="streaming")

    many = dg.AssetSpec("many", partitions_def=dg.StaticPartitionsDefinition(names))
    assert materialize([many, down], manager(tmp_path)).success


@pytest.mark.seed
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
    numbers = figures(result, "products")

    assert shown["dagster/row_count"] == len(frame)
    assert shown["dagster/uri"] == str(path)
    assert numbers["file_size_bytes"] == path.stat().st_size
    assert numbers["pages"] == numbers["charged_requests"] == 3
    assert numbers["requests"] == len(shops.requests)
    assert numbers["retries"] == 0
    assert numbers["rows_per_second"] > 0
    assert shown["octogen/unknown_fields"] >= 100  # of the first page of each walk
    left_out = ("truncated", "empty", "repeats_removed", "rate_limit_wait_seconds")
    assert not [name for name in left_out if name in numbers]  # there is nothing to say of them
    assert shown["octogen/search"]["catalogs"] == ["northpeak"]
    sent = {request.request_id for request in shops.requests}
    assert len(numbers["request_ids"]) == 2
    assert sent.issuperset(numbers["request_ids"])
    assert numbers["null_share_current_price"] == 0
    brands = frame["brand"].struct.field("name")
    assert numbers["null_share_brand"] == round(brands.null_count() / len(frame), 4)
    assert shown["octogen/price_p50_no_currency"] == round(
        frame["current_price"].quantile(0.5) or 0, 4
    )
    columns = {column.name: column for column in shown["dagster/column_schema"].columns}
    assert list(columns) == list(PRODUCT_SCHEMA)
    assert all(column.description for column in columns.values())
    assert shown["octogen/preview"].startswith("| product | brand | price |")


@pytest.mark.parametrize("value", [{"n": [1]}, "text"])
def test_a_value_that_is_no_frame_is_refused(tmp_path: Path, value: Any) -> None:
    @dg.asset
    def made() -> Any:
        return value

    with pytest.raises(
        TypeError, match=r"Asset made returned .*, which cannot be stored as a snapshot"
    ):
        materialize([made], manager(tmp_path))
