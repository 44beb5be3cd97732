"""Frames of each library are stored, and loaded as the type that an input is annotated with."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest

import octogen_dagster as od
from octogen_dagster.snapshots.loading import Snapshots
from tests.projects import Project
from tests.results import materialized, of_range, stored
from tests.servers.buckets import S3Bucket

SHOPS = dg.StaticPartitionsDefinition(["acme", "zen"])
KINDS = [pl.LazyFrame, pl.DataFrame, pd.DataFrame, pa.Table, Path]


@dg.asset
def boots() -> pl.DataFrame:
    return pl.DataFrame({"title": ["Boot", None], "brand": [{"name": "Acme"}, None], "n": [1, 2]})


@dg.asset(partitions_def=SHOPS)
def by_shop(context: dg.AssetExecutionContext) -> pl.DataFrame:
    return pl.DataFrame({"shop": [context.partition_key]})


def rows(loaded: Any) -> list[dict[str, Any]]:
    """The rows of what was loaded, by its own methods."""
    if isinstance(loaded, pd.DataFrame):
        frame = loaded.astype(object).where(loaded.notna(), None)
        return [
            {str(name): value for name, value in row.items()} for row in frame.to_dict("records")
        ]
    if isinstance(loaded, pa.Table):
        found: list[dict[str, Any]] = loaded.to_pylist()
        return found
    if isinstance(loaded, Path):
        return pl.read_parquet(loaded).to_dicts()
    return loaded.lazy().collect().to_dicts()  # type: ignore[no-any-return]


@pytest.fixture
def resources(tmp_path: Path, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return an IO manager that has the snapshots of both assets."""
    materialized([boots], tmp_path, instance=instance)
    for key in SHOPS.get_partition_keys():
        materialized([by_shop], tmp_path, instance=instance, partition_key=key)
    return stored(tmp_path)


def load(
    source: dg.AssetsDefinition,
    annotation: Any,
    resources: dict[str, Any],
    instance: dg.DagsterInstance,
    partition_key: str | None = None,
) -> Any:
    """Load an asset in a run of another one, whose input has the annotation."""
    seen = []

    def down(loaded: Any) -> None:
        seen.append(loaded)

    down.__annotations__["loaded"] = annotation
    asset = dg.asset(
        down,
        ins={"loaded": dg.AssetIn(source.key)},
        partitions_def=SHOPS if partition_key else None,
    )
    dg.materialize(
        [source.to_source_asset(), asset],
        selection=[asset],
        resources=resources,
        instance=instance,
        partition_key=partition_key,
    )
    (loaded,) = seen
    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_has_the_type_of_its_annotation(
    resources: dict[str, Any], instance: dg.DagsterInstance, kind: Any
) -> None:
    loaded = load(boots, kind, resources, instance)
    assert isinstance(loaded, kind)
    assert rows(loaded) == [
        {"title": "Boot", "brand": {"name": "Acme"}, "n": 1},
        {"title": None, "brand": None, "n": 2},
    ]
    loaded = load(by_shop, kind, resources, instance, partition_key="zen")
    assert isinstance(loaded, kind)
    assert rows(loaded) == [{"shop": "zen"}]
    for mapping in (dict, Mapping):
        loaded = load(by_shop, mapping[str, kind], resources, instance)
        assert all(isinstance(each, kind) for each in loaded.values())
        assert {key: rows(each) for key, each in loaded.items()} == {
            "acme": [{"shop": "acme"}],
            "zen": [{"shop": "zen"}],
        }
    if kind is Path:
        with pytest.raises(TypeError, match=r"by_shop has several partitions.*dict\[str, "):
            load(by_shop, Path, resources, instance)
        return
    loaded = load(by_shop, kind, resources, instance)
    assert isinstance(loaded, kind)
    assert rows(loaded) == [
        {"shop": "acme", "partition": "acme"},
        {"shop": "zen", "partition": "zen"},
    ]


def test_an_asset_is_loaded_outside_of_a_run_as_the_type_that_is_asked_for(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    defs = dg.Definitions(assets=[boots, by_shop], resources=resources)
    for kind in KINDS:
        loaded = defs.load_asset_value("boots", python_type=kind, instance=instance)
        assert isinstance(loaded, kind)
        assert len(rows(loaded)) == 2
        loaded = defs.load_asset_value(
            "by_shop", python_type=kind, instance=instance, partition_key="acme"
        )
        assert isinstance(loaded, kind)
        assert rows(loaded) == [{"shop": "acme"}]
    for unnamed in (None, pd.DataFrame, dict[str, pd.DataFrame]):
        with pytest.raises(
            od.errors.OctogenSnapshotError, match=r"^by_shop .* partition key: load_asset_value"
        ):
            defs.load_asset_value("by_shop", python_type=unnamed, instance=instance)


def test_any_other_type_is_an_error_that_lists_those_that_are_loaded(
    resources: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    refused: list[tuple[dg.AssetsDefinition, Any, str]] = [
        (boots, list, "typing.List[typing.Any]"),
        (boots, pl.Series, "polars.series.series.Series"),
        (boots, pd.Series, f"{pd.Series.__module__}.Series"),
        (boots, pl.DataFrame | None, "typing.Optional["),
        (by_shop, dict, "dict. "),
        (by_shop, dict[str, int], "typing.Dict[str, int]"),
    ]
    for source, annotation, shown in refused:
        with pytest.raises(TypeError) as caught:
            load(source, annotation, resources, instance)
        message = str(caught.value)
        assert message.startswith(f"{source.key.to_user_string()} cannot be loaded as {shown}")
        for supported in ("pl.LazyFrame", "pl.DataFrame", "pd.DataFrame", "pyarrow.Table"):
            assert supported in message
        assert "pathlib.Path" in message
        assert "dict[str, ...]" in message


def test_a_snapshot_in_a_bucket_has_no_path(instance: dg.DagsterInstance, bucket: S3Bucket) -> None:
    resources = {"io_manager": bucket.io_manager()}
    dg.materialize([boots], resources=resources, instance=instance)
    assert len(load(boots, pd.DataFrame, resources, instance)) == 2
    with pytest.raises(
        od.errors.OctogenSnapshotError, match=r"pathlib\.Path, because (s3|gs)://.*pl\.LazyFrame"
    ) as raised:
        load(boots, Path, resources, instance)
    assert raised.value.persistence is od.errors.Persistence.PERMANENT


def test_pandas_without_pyarrow_is_an_error_that_says_what_to_install(
    resources: dict[str, Any], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(od.errors.MissingPackageError, match="Add pyarrow to "):
        load(boots, pd.DataFrame, resources, instance)


@pytest.mark.parametrize("policy", [None, dg.BackfillPolicy.single_run()])
def test_all_assets_of_some_products_go_into_one_job_with_those_of_ones_own(
    policy: dg.BackfillPolicy | None,
) -> None:
    """Dagster refuses a job in which two of its types have one name."""
    arguments: dict[str, Any] = {"backfill_policy": policy}
    products = od.build_products_asset(
        "products", partitions_def=od.catalog_partitions, **arguments
    )
    history = od.build_product_history_asset(products, **arguments)
    builders = (od.build_product_details_asset, od.build_product_brands_asset)

    @dg.asset(partitions_def=od.catalog_partitions, ins={"frame": dg.AssetIn("products")})
    def cheap(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame

    assets = [products, history, cheap, *(build(products, **arguments) for build in builders)]
    assets.append(od.build_product_changes_asset(history, **arguments))
    octogen = od.OctogenResource(catalog_source=od.GrantedCatalogs())
    resources = {"octogen": octogen, "io_manager": od.ParquetSnapshotIOManager(base_dir="s")}
    defs = dg.Definitions(assets=assets, resources=resources)
    assert len(defs.resolve_implicit_global_asset_job_def().graph.node_defs) == len(assets)


# The handle, which opens snapshots one by one.

DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-04")
BY_DAY = dg.MultiPartitionsDefinition({"shop": SHOPS, "day": DAYS})


def handle(
    source: dg.AssetsDefinition,
    folder: Path,
    instance: dg.DagsterInstance,
    metadata: dict[str, Any] | None = None,
    published: Sequence[str | None] = (),
    **resources: Any,
) -> Snapshots:
    """Publish partitions of an asset, and return the handle of an input that has all of them."""
    given = stored(folder) | resources
    for key in published:
        dg.materialize([source], resources=given, instance=instance, partition_key=key)
    seen = []

    @dg.asset(ins={"snapshots": dg.AssetIn(source.key, metadata=metadata)})
    def down(snapshots: Snapshots) -> None:
        seen.append(snapshots)

    dg.materialize(
        [source.to_source_asset(), down], selection=[down], resources=given, instance=instance
    )
    (snapshots,) = seen
    return snapshots


def opened(stored: Sequence[Any]) -> list[Any]:
    return [(each.name, rows(each.open()[0])) for each in stored]


def test_the_snapshots_of_times_are_opened_by_partition_and_by_catalog(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset(partitions_def=BY_DAY)
    def prices(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"at": [context.partition_key]})

    published = ["2026-11-01|acme", "2026-11-03|acme", "2026-11-02|acme", "2026-11-01|zen"]
    found = handle(prices, tmp_path, instance, {"allow_missing_partitions": True}, published)
    assert len(found.partitions) == 6
    of_acme = [(key, [{"at": key}]) for key in sorted(published[:3])]
    assert opened(found.of_catalog("acme")) == of_acme
    assert found.of_catalog("none") == []
    last = dg.MultiPartitionKey({"shop": "acme", "day": "2026-11-03"})
    assert rows(found.frame(last)) == [{"at": last}]
    together = pl.concat(found.frames()).collect()
    assert sorted(together["at"]) == sorted(published)
    assert rows(found.frame(None)) == [{"at": key, "partition": key} for key in together["at"]]
    missing = dg.MultiPartitionKey({"shop": "zen", "day": "2026-11-03"})
    for open_one in (found.frame, found.file):
        with pytest.raises(od.errors.OctogenSnapshotError, match="does not exist"):
            open_one(missing)


def test_a_snapshot_without_times_is_opened_by_itself(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    found = handle(boots, tmp_path, instance, published=[None])
    assert found.partitions == ()
    assert len(found.of_catalog(None)) == 1
    file = found.file(None)
    assert (file.row_count, file.is_local, "octogen.run_id" in file.metadata) == (2, True, True)
    (frame,) = found.frames()
    assert rows(frame) == rows(file.frame) == rows(found.frame(None))


# What an asset may return.


RETURNED: dict[type, Any] = {
    pl.LazyFrame: pl.LazyFrame({"title": ["Boot", None], "n": [1, 2]}),
    pl.DataFrame: pl.DataFrame({"title": ["Boot", None], "n": [1, 2]}),
    pd.DataFrame: pd.DataFrame({"title": ["Boot", None], "n": [1, 2]}),
    pa.Table: pa.table({"title": ["Boot", None], "n": [1, 2]}),
}


def returning(value: Any, annotation: Any, **arguments: Any) -> dg.AssetsDefinition:
    """An asset that returns a value, with an annotation that says so."""

    def own() -> Any:
        return value

    own.__annotations__["return"] = annotation
    made: dg.AssetsDefinition = dg.asset(**arguments)(own)
    return made


@pytest.mark.parametrize("kind", RETURNED)
def test_a_frame_of_each_library_is_stored(project: Project, kind: type) -> None:
    project.run([returning(RETURNED[kind], kind)])
    stored_frame = project.read("own")
    assert stored_frame.rows(named=True) == [{"title": "Boot", "n": 1}, {"title": None, "n": 2}]
    assert stored_frame.schema == {"title": pl.String, "n": pl.Int64}


@pytest.mark.parametrize("kind", RETURNED)
def test_the_partitions_of_a_run_may_be_frames_of_each_library(
    project: Project, kind: type
) -> None:
    own = returning(
        dict.fromkeys(SHOPS.get_partition_keys(), RETURNED[kind]),
        dict[str, kind],  # type: ignore[valid-type]
        partitions_def=SHOPS,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    tags = of_range("acme", "zen")
    project.run([own], tags=tags)
    for shop in SHOPS.get_partition_keys():
        assert len(project.read("own", shop)) == 2


def test_the_named_index_of_pandas_is_stored_as_columns(project: Project) -> None:
    frame = pd.DataFrame({"brand": ["Acme", "Zen", "Acme"], "price": [1.0, 2.0, 3.0]})
    medians = frame.groupby("brand").median()
    project.run([returning(medians, pd.DataFrame)])
    assert project.read("own").rows() == [("Acme", 2.0), ("Zen", 2.0)]
    dear = frame[frame["price"] > 1]  # its index, which has gaps, has no name
    project.run([returning(dear, pd.DataFrame)])
    assert project.read("own").columns == ["brand", "price"]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"n": [1, 2, 3], "size": [42, None, "XL"]}),
        pd.DataFrame({"n": [1, 2], "size": [{"eu": 42}, {"eu": "XL"}]}),
        pd.DataFrame({"size": [42, "XL"], "n": [1, 2]}).set_index("size"),
        pl.DataFrame({"n": [1, 2], "size": pl.Series([42, "XL"], dtype=pl.Object)}),
        pl.LazyFrame({"n": [1, 2], "size": pl.Series([42, "XL"], dtype=pl.Object)}),
    ],
    ids=["pandas", "nested", "index", "polars", "lazy"],
)
def test_a_column_of_mixed_values_is_named_with_its_asset(project: Project, frame: Any) -> None:
    with pytest.raises(TypeError, match=r"^Asset own: the column 'size' has values"):
        project.run([returning(frame, type(frame))])


def test_pandas_without_pyarrow_is_not_stored_and_the_error_says_what_to_install(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    own = returning(RETURNED[pd.DataFrame], pd.DataFrame)
    with pytest.raises(od.errors.MissingPackageError, match="Add pyarrow to "):
        project.run([own])


def test_an_asset_that_returns_nothing_is_told_of_the_annotation(project: Project) -> None:
    @dg.asset
    def own():  # type: ignore[no-untyped-def]
        pass

    with pytest.raises(
        TypeError, match=r"^Asset own returned None.* annotate the function with `-> None`"
    ):
        project.run([own])
