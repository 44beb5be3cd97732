"""A snapshot under another IO manager is a whole, checked frame, and what cannot work says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest
from dagster_delta import DeltaLakePolarsIOManager, LocalConfig
from dagster_polars import PolarsParquetIOManager

import octogen_dagster as od
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.needs import needs
from tests.results import failure, is_retried, metadata, octogen_at, of_range

HOSTILE = "a'; DROP TABLE public.octogen_catalogs; --\"/*"


pytestmark = needs("dagster_duckdb_polars")


def of_duckdb(folder: Path) -> Any:
    from dagster_duckdb_polars import DuckDBPolarsIOManager

    return DuckDBPolarsIOManager(database=str(folder / "shop.duckdb"), schema="public")


def of_delta(folder: Path) -> Any:
    return DeltaLakePolarsIOManager(
        root_uri=str(folder), storage_options=LocalConfig(), schema="public"
    )


def of_polars(folder: Path) -> Any:
    return PolarsParquetIOManager(base_dir=str(folder))


def of_dagster(folder: Path) -> Any:
    return dg.FilesystemIOManager(base_dir=str(folder))


MANAGERS: dict[str, Callable[[Path], Any]] = {
    "duckdb": of_duckdb,
    "delta": of_delta,
    "dagster": of_dagster,
}
if pl.__version__.startswith("1."):  # dagster-polars does not read with Polars 2
    MANAGERS["polars"] = of_polars


@pytest.fixture(autouse=True)
def _reading_of_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    """dagster-duckdb-polars reads by a method that DuckDB 2 calls by another name."""
    connection = duckdb.DuckDBPyConnection
    if not hasattr(connection, "arrow"):
        monkeypatch.setattr(connection, "arrow", connection.to_arrow_table, raising=False)


@pytest.fixture(scope="module")
def service() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 130, "strada": 20}, generation="seed") as running:
        yield running


def resources(service: Sandbox, manager: Any) -> dict[str, Any]:
    octogen = octogen_at(service)
    return {"octogen": octogen, "io_manager": manager}


def said(instance: dg.DagsterInstance, run_id: str, text: str) -> list[str]:
    return [
        each.user_message for each in instance.all_logs(run_id) if text in (each.user_message or "")
    ]


@dg.asset
def counted(boots: pl.DataFrame) -> pl.DataFrame:
    return boots.group_by("catalog_key").len()


@pytest.mark.parametrize("name", MANAGERS)
def test_a_search_and_what_follows_it(
    name: str, service: Sandbox, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    boots = od.build_products_asset("boots", od.ProductSearch(catalogs=["northpeak"]))
    assets = [boots, counted, od.build_product_brands_asset(boots), od.build_catalogs_asset()]
    definitions = dg.Definitions(
        assets=assets,
        asset_checks=od.build_snapshot_checks(boots),
        resources=resources(service, MANAGERS[name](tmp_path)),
    )
    result = definitions.get_implicit_global_asset_job_def().execute_in_process(instance=instance)
    assert result.success
    frame: pl.DataFrame = result.output_for_node("boots")
    assert (frame.height, frame["uuid"].n_unique(), frame.schema) == (130, 130, PRODUCT_SCHEMA)
    shown = metadata(result, "boots")
    assert shown["dagster/row_count"] == 130
    assert shown["octogen/cost_usd"] > 0
    assert shown["octogen/summary"].startswith("**130 products**")
    assert result.output_for_node("counted")["len"].to_list() == [130]
    assert result.output_for_node("boots_brands")["products"].sum() == 130
    catalogs: pl.DataFrame = result.output_for_node("octogen_catalogs")
    assert sorted(catalogs["catalog"]) == ["northpeak", "strada"]
    assert all(each.passed for each in result.get_asset_check_evaluations())
    told = said(instance, result.run_id, "snapshot is passed to the")
    assert len(told) == 2  # products and brands; the catalogs are a frame in any case


@pytest.mark.long
@pytest.mark.parametrize("name", MANAGERS)
def test_catalogs_by_partition_and_what_follows_them(
    name: str, service: Sandbox, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    polars = tuple(map(int, pl.__version__.split(".")[:2]))
    if name == "delta" and polars < (1, 44):
        pytest.skip("deltalake aborts the process with these frames of an earlier Polars")
    partitions = od.catalog_partitions
    shops = od.build_products_asset(
        "shops", partitions_def=partitions, metadata={"partition_expr": "catalog_key"}
    )
    brands = od.build_product_brands_asset(shops, metadata={"partition_expr": "currency"})

    @dg.asset(partitions_def=partitions, metadata={"partition_expr": "catalog_key"})
    def cheapest(shops: pl.DataFrame) -> pl.DataFrame:
        return shops.select("catalog_key", "uuid", "current_price").sort("current_price").head(1)

    follow = [cheapest] if name in ("duckdb", "delta") else [cheapest, brands]
    instance.add_dynamic_partitions(partitions.name or "", ["northpeak", "strada"])
    manager = MANAGERS[name](tmp_path)
    for catalog, rows in (("northpeak", 130), ("strada", 20), ("northpeak", 130)):
        result = dg.materialize(
            [shops, *follow],
            partition_key=catalog,
            resources=resources(service, manager),
            instance=instance,
        )
        assert result.success
        assert result.output_for_node("shops").height == rows
        shown = metadata(result, "shops")
        assert shown["dagster/partition_row_count"] == rows
        assert result.output_for_node("cheapest")["catalog_key"].to_list() == [catalog]
    # What another IO manager had before is not known, so what follows is woken by each run.
    made = [
        each.asset_materialization for each in instance.fetch_materializations(shops.key, 3).records
    ]
    assert len({(each.tags or {})["dagster/data_version"] for each in made if each}) == 3
    if name == "duckdb":
        with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
            found = connection.sql(
                "SELECT catalog_key, count(*), count(DISTINCT uuid) FROM public.shops "
                "GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        assert found == [("northpeak", 130, 130), ("strada", 20, 20)]


@pytest.mark.parametrize("name", ["duckdb", "dagster"])
def test_what_needs_the_snapshot_before_ends_before_it_is_paid(
    name: str, service: Sandbox, tmp_path: Path
) -> None:
    boots = od.build_products_asset("boots", od.ProductSearch(catalogs=["northpeak"]))
    given = resources(service, MANAGERS[name](tmp_path))
    assert dg.materialize([boots], resources=given).success
    before = len(service.requests)
    for follows in (od.build_product_history_asset(boots), od.build_product_details_asset(boots)):
        result = dg.materialize(
            [boots, follows], selection=[follows], resources=given, raise_on_error=False
        )
        assert len(service.requests) == before
        assert not is_retried(result)
        text = failure(result)
        assert f"{follows.key.path[-1]} needs a ParquetSnapshotIOManager" in text
        assert "io_manager_key=" in text
        assert "snapshots=ParquetSnapshotIOManager(base_dir=" in text


def test_what_needs_the_snapshot_before_works_beside_another_io_manager(
    service: Sandbox, tmp_path: Path
) -> None:
    boots = od.build_products_asset(
        "boots", od.ProductSearch(catalogs=["northpeak"]), io_manager_key="snapshots"
    )
    history = od.build_product_history_asset(boots, io_manager_key="snapshots")
    changes = od.build_product_changes_asset(history, io_manager_key="snapshots")
    result = dg.materialize(
        [boots, history, changes, counted],
        resources={
            **resources(service, of_duckdb(tmp_path)),
            "snapshots": od.ParquetSnapshotIOManager(base_dir=str(tmp_path / "snapshots")),
        },
    )
    assert result.success
    assert result.output_for_node("counted")["len"].to_list() == [130]


def test_an_overridden_handle_output_is_told_that_builders_do_not_call_it(
    service: Sandbox, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    class Own(od.ParquetSnapshotIOManager):
        def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
            raise AssertionError("not reached")

    class Named(od.ParquetSnapshotIOManager): ...

    boots = od.build_products_asset("boots", od.ProductSearch(catalogs=["strada"]))
    for kind in (Own, Named):
        given = resources(service, kind(base_dir=str(tmp_path)))
        result = dg.materialize([boots], resources=given, instance=instance)
        told = said(instance, result.run_id, "'io_manager' overrides handle_output")
        assert len(told) == (kind is Own)


@pytest.mark.parametrize("given", [{"io_manager": dg.FilesystemIOManager()}, {}], ids=["fs", "no"])
def test_a_scan_that_nobody_reads_says_what_it_needs(
    given: dict[str, Any], octogen: od.OctogenResource
) -> None:
    @dg.asset
    def own(octogen: od.OctogenResource) -> Any:
        return octogen.scan(od.ProductSearch(catalogs=["northpeak"]))

    with pytest.raises(TypeError, match=r"ParquetSnapshotIOManager .*io_manager_key"):
        dg.materialize([own], resources={"octogen": octogen, **given})


def test_a_run_of_several_partitions_ends_before_it_is_paid(
    service: Sandbox, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    partitions = od.catalog_partitions
    shops = od.build_products_asset(
        "shops",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "catalog_key"},
    )
    instance.add_dynamic_partitions(partitions.name or "", ["northpeak", "strada"])
    before = len(service.requests)
    result = dg.materialize(
        [shops],
        tags=of_range("northpeak", "strada"),
        resources=resources(service, of_duckdb(tmp_path)),
        instance=instance,
        raise_on_error=False,
    )
    assert not result.success
    assert len(service.requests) == before
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "Without a backfill_policy" in str(failure.event_specific_data)


def test_the_snapshots_of_a_range_are_not_taken_for_those_of_each_partition(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    shops, policy = dg.StaticPartitionsDefinition(["acme", "zen"]), dg.BackfillPolicy.single_run()
    by_key = {"partition_expr": "catalog_key"}

    @dg.asset(partitions_def=shops, backfill_policy=policy, metadata=by_key)
    def products() -> pl.DataFrame:
        key = dg.AssetExecutionContext.get().partition_key
        row = {"catalog_key": key, "brand": {"name": "Acme"}, "currency": "EUR"}
        return pl.DataFrame([{**row, "in_stock": True, "is_active": True, "current_price": 1.0}])

    brands = od.build_product_brands_asset(
        products, io_manager_key="snapshots", backfill_policy=policy
    )
    snapshots = od.ParquetSnapshotIOManager(base_dir=str(tmp_path / "snapshots"))
    given = {"io_manager": of_duckdb(tmp_path), "snapshots": snapshots}
    for key in shops.get_partition_keys():
        dg.materialize([products], partition_key=key, resources=given, instance=instance)
    result = dg.materialize(
        [products, brands],
        selection=[brands],
        tags=of_range("acme", "zen"),
        resources=given,
        instance=instance,
        raise_on_error=False,
    )
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "Without a backfill_policy" in str(failure.event_specific_data)


class InMemory(dg.IOManager):
    """An IO manager that keeps one frame, and says how many rows it loads of it."""

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        self.frame = obj

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        if not context.has_asset_partitions:  # Dagster takes it of one partition only
            context.add_input_metadata({"loaded": len(self.frame)})
        return self.frame


def test_the_rows_of_a_range_are_checked_together(instance: dg.DagsterInstance) -> None:
    shops, policy = dg.StaticPartitionsDefinition(["acme", "zen"]), dg.BackfillPolicy.single_run()

    @dg.asset(partitions_def=shops, backfill_policy=policy)
    def own() -> pl.DataFrame:
        return pl.DataFrame({"product_url": ["https://acme.example/1", None]})

    checks = od.build_snapshot_checks(
        own, max_age=None, max_null_percent={"product_url": 0}, max_bad_price_percent=None
    )
    result = dg.materialize(
        [own, *checks],
        tags=of_range("acme", "zen"),
        resources={"io_manager": InMemory()},
        instance=instance,
    )
    found = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert found == {"rows_within_bounds": True, "nulls": False}


def test_what_an_io_manager_says_of_an_input_is_reported(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def own() -> pl.DataFrame:
        return pl.DataFrame({"product_url": ["https://acme.example/1"]})

    checks = od.build_snapshot_checks(
        own, max_age=None, max_null_percent=None, max_bad_price_percent=None
    )
    result = dg.materialize([own, *checks], resources={"io_manager": InMemory()}, instance=instance)
    (said_of_it,) = result.get_asset_observation_events()
    observed = said_of_it.asset_observation_data.asset_observation
    assert observed.metadata["loaded"].value == 1


@pytest.mark.slow
def test_sql_in_a_partition_key_is_not_executed(
    service: Sandbox, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """CVE-2026-41490: dagster-duckdb once put such keys into its SQL as they are."""
    partitions = od.catalog_partitions
    shops = od.build_products_asset(
        "shops", partitions_def=partitions, metadata={"partition_expr": "catalog_key"}
    )
    given = resources(service, of_duckdb(tmp_path))
    instance.add_dynamic_partitions(partitions.name or "", [HOSTILE, "strada"])
    assert dg.materialize([od.build_catalogs_asset()], resources=given, instance=instance).success
    for key in ("strada", HOSTILE):
        dg.materialize(
            [shops], partition_key=key, resources=given, instance=instance, raise_on_error=False
        )

    @dg.asset(partitions_def=partitions, metadata={"partition_expr": "catalog_key"})
    def own() -> pl.DataFrame:
        return pl.DataFrame({"catalog_key": [HOSTILE], "price": [1.0]})

    for _ in range(2):
        result = dg.materialize([own], partition_key=HOSTILE, resources=given, instance=instance)
        assert result.success
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        tables = connection.sql("SELECT table_name FROM information_schema.tables").fetchall()
        assert {"octogen_catalogs", "shops", "own"} <= {name for (name,) in tables}
        assert connection.sql("SELECT count(*) FROM public.octogen_catalogs").fetchall() == [(2,)]
        assert connection.sql("SELECT catalog_key FROM public.own").fetchall() == [(HOSTILE,)]
        assert connection.sql("SELECT count(*) FROM public.shops").fetchall() == [(20,)]
