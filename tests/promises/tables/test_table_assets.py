"""The assets of tables in Dagster: ranges, errors, what they show, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.errors import OctogenTableError
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.tables import BigQueryTables, DuckDBTables, PostgresTables, SnowflakeTables
from octogen_dagster.tables.duckdb import DuckDBConnection
from tests.promises.tables.table_runs import CATALOGS, Project, assert_same_rows, expected_rows
from tests.results import failure, is_retried, octogen_at, of_range, stored
from tests.servers.bigquery import refused, serving
from tests.warehouses import DuckDB

RANGE = of_range("acme", "strada")


def policy() -> dg.BackfillPolicy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.BackfillPolicy.single_run()


def ranged(tmp_path: Path) -> tuple[Project, DuckDB]:
    warehouse = DuckDB(tmp_path)
    project = Project(tmp_path, warehouse.destination, CATALOGS, backfill_policy=policy())
    for number, key in enumerate(CATALOGS.get_partition_keys()):
        project.frames[key] = pl.DataFrame({"uuid": [f"{key}-{each}" for each in range(number)]})
    project.publish(tags=RANGE)
    return project, warehouse


@pytest.mark.slow
def test_a_run_of_several_partitions_loads_and_reports_each(tmp_path: Path) -> None:
    project, warehouse = ranged(tmp_path)
    result = project.load(tags=RANGE)
    events = result.asset_materializations_for_node("products_table")
    counts = {each.partition: each.metadata["dagster/partition_row_count"].value for each in events}
    assert counts == {"acme": 0, "lodge": 1, "strada": 2}
    checks = {each.partition: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {"acme": True, "lodge": True, "strada": True, None: True}
    assert len(warehouse.rows("products")) == 3
    again = project.load(tags=RANGE).asset_materializations_for_node("products_table")
    assert [each.metadata["octogen/loaded"].value for each in again] == [False] * 3


@pytest.mark.slow
def test_a_partition_that_fails_spoils_no_other(tmp_path: Path) -> None:
    project, warehouse = ranged(tmp_path)
    (tmp_path / "products" / "lodge.parquet").unlink()
    result = project.load(tags=RANGE, raise_on_error=False)
    assert "1 of 3 partitions of products_table failed" in failure(result)
    assert "'lodge'" in failure(result)
    assert {row["partition"] for row in warehouse.rows("products")} == {"strada"}
    project.publish(tags=RANGE)
    assert project.load(tags=RANGE).success
    assert {row["partition"] for row in warehouse.rows("products")} == {"lodge", "strada"}


def make_job() -> dg.JobDefinition:
    """The job of the tables of `ranged`, in the folder that the environment names."""
    base = Path(os.environ["TABLES"])
    project = Project(base, DuckDB(base).destination, CATALOGS, backfill_policy=policy())
    job = dg.define_asset_job("tables", project.tables, executor_def=dg.in_process_executor)
    resources = {"io_manager": od.ParquetSnapshotIOManager(base_dir=str(base))}
    definitions = dg.Definitions(
        [*project.assets, *project.tables], jobs=[job], resources=resources
    )
    return definitions.resolve_job_def("tables")


@pytest.mark.slow
def test_a_run_that_is_executed_again_and_fails_again_says_which_partition_failed(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, warehouse = ranged(tmp_path)
    lodge = tmp_path / "products" / "lodge.parquet"
    lodge.rename(tmp_path / "lodge.parquet")
    monkeypatch.setenv("TABLES", str(tmp_path))
    job = dg.reconstructable(make_job)
    run = dg.execute_job(job, instance=instance, tags=RANGE, raise_on_error=False)
    for _ in range(2):
        options = dg.ReexecutionOptions(run.run_id)
        run = dg.execute_job(
            job, instance=instance, tags=RANGE, raise_on_error=False, reexecution_options=options
        )
        assert "1 of 3 partitions of products_table failed" in failure(run)
        assert "'lodge'" in failure(run)
        reported = instance.get_materialized_partitions(dg.AssetKey("products_table"))
        assert reported == {"acme", "strada"}
    (tmp_path / "lodge.parquet").rename(lodge)
    options = dg.ReexecutionOptions(run.run_id)
    assert dg.execute_job(job, instance=instance, tags=RANGE, reexecution_options=options).success
    assert {row["partition"] for row in warehouse.rows("products")} == {"lodge", "strada"}


@pytest.mark.long
def test_products_and_what_is_made_from_them_become_tables(tmp_path: Path) -> None:
    warehouse = DuckDB(tmp_path)
    catalogs = od.build_catalogs_asset("catalogs")
    products = od.build_products_asset("products", partitions_def=od.catalog_partitions)
    history = od.build_product_history_asset(products)
    assets = [
        products,
        history,
        od.build_product_changes_asset(history),
        od.build_product_brands_asset(products),
        od.build_product_details_asset(products),
    ]
    tables = [od.build_table_asset(each, warehouse.destination) for each in [catalogs, *assets]]
    with Sandbox(catalogs=2, products=30) as octogen, dg.DagsterInstance.ephemeral() as instance:
        resources = stored(
            tmp_path, octogen_at(octogen, catalog_source=od.ShopCatalogs(octogen.hosts))
        )
        listed = dg.materialize([catalogs, tables[0]], resources=resources, instance=instance)
        assert listed.success
        (first, second) = sorted(row["catalog"] for row in warehouse.rows("catalogs"))
        instance.add_dynamic_partitions("octogen_catalogs", [first, second])
        for key in (first, second):
            result = dg.materialize(
                [*assets, *tables[1:]], resources=resources, instance=instance, partition_key=key
            )
            assert result.success
    for asset in assets:
        name = asset.key.path[-1]
        found = warehouse.rows(name)
        expected: list[dict[str, Any]] = []
        for key in (first, second):
            path = tmp_path / name / f"{key}.parquet"
            own: dict[str, Any] = {"partition": key}
            if name == "products_changes":
                own["fetched_at"] = max(
                    row["fetched_at"]
                    for row in warehouse.rows("products")
                    if row["partition"] == key
                )
            expected += expected_rows(pl.read_parquet(path), **own)
        assert_same_rows(found, expected)
        assert found


def test_the_asset_shows_its_destination_kind_and_pool(tmp_path: Path) -> None:
    @dg.asset
    def products() -> None: ...

    table = od.build_table_asset(products, DuckDBTables(database="data/shop.duckdb"), table="boots")
    (spec,) = table.specs
    assert spec.key.to_user_string() == "products_table"
    assert spec.kinds == {"octogen", "duckdb"}
    assert spec.metadata["dagster/table_name"] == "octogen.boots"
    assert table.op.pool == "octogen_duckdb_shop"
    assert [dep.asset_key for dep in spec.deps] == [products.key]
    pools = {
        PostgresTables(uri=dg.EnvVar("WAREHOUSE")).pool,
        PostgresTables(uri="postgresql://a:b@host/shop").pool,
        DuckDBTables(database="md:shop").pool,
        DuckDBTables(database="ducklake:shop.ducklake").pool,
        BigQueryTables(project="my-project").pool,
        SnowflakeTables(account="a", user="u", database="SHOP").pool,
    }
    assert pools == {
        "octogen_postgres_WAREHOUSE",
        "octogen_postgres_shop",
        "octogen_duckdb_shop",
        "octogen_bigquery_my_project",
        "octogen_snowflake_SHOP",
    }


def one_table(tmp_path: Path, destination: Any) -> dg.ExecuteInProcessResult:
    project = Project(tmp_path, destination)
    project.store(pl.DataFrame({"uuid": ["a"]}))
    return project.load(raise_on_error=False)


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_without_a_value_is_named(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("NO_WAREHOUSE", value)
    result = one_table(tmp_path, DuckDBTables(database=dg.EnvVar("NO_WAREHOUSE")))
    assert "DuckDBTables takes database from the environment variable NO_WAREHOUSE" in (
        failure(result)
    )
    assert not is_retried(result)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        (
            "postgresql://me:pa55%40w0rd@127.0.0.1:1/shop",
            "PostgreSQL (shop at 127.0.0.1) ",
        ),
        (
            "postgresql://me:%41pa55w0rd@127.0.0.1:1/shop",
            "PostgreSQL (shop at 127.0.0.1) ",
        ),
        ("postgresql://127.0.0.1:1/shop?password=pa55&sslmode=w0rd", "PostgreSQL (shop at 127.0"),
        ("postgresql://me:pa55w0rd@127.0.0.1:1/shop\n", "PostgreSQL (shop at 127.0.0.1) "),
        (
            "postgresql://127.0.0.1:1/shop?application_name=a&connect_timeout=1",
            'at "127.0.0.1", port 1 failed',
        ),
        *(
            (uri, "uri for PostgreSQL is malformed")
            for uri in (
                "postgresql://me:pa55/w0rd@127.0.0.1:1/shop",
                "postgresql://me:pa55@w0rd@127.0.0.1:1/shop",
                "postgresql://me:55/w0rd@127.0.0.1:1/shop",
                "postgresql://me:pa55%w0rd@127.0.0.1:1/shop",
                "postgresql://me:pa55%00w0rd@127.0.0.1:1/shop",
                "postgresql://me:55#w0rd@127.0.0.1:1/shop",
                "postgresql://me:55?w0rd@127.0.0.1:1/shop",
                "postgresql://me:pa55 w0rd@127.0.0.1:1/shop",
                "me:pa55w0rd@127.0.0.1:1/shop",
                "pa55w0rd",
                "postgresql://me:pa55w0rd/shop",
                "postgresql://me:pa55w0rd",
                "postgresql://me:5555555/shop",
                "postgresql://127.0.0.1:1/shop?pa55w0rd",
                "postgresql://127.0.0.1:1/shop?password=55=w0rd",
                "postgresql://[::55w0rd/shop",
            )
        ),
    ],
)
def test_an_error_says_which_destination_and_shows_no_part_of_a_password(
    uri: str, text: str
) -> None:
    destination = PostgresTables(uri=uri)
    with pytest.raises(OctogenTableError) as raised, destination.connect():
        pass
    assert text in str(raised.value)
    shown = f"{raised.value} {destination.place} {destination.pool} {destination!r}"
    assert not re.search("55|w0rd", shown), shown


@pytest.mark.parametrize(
    "database",
    [
        "ducklake:postgres:dbname=lake host=127.0.0.1 port=1 password=pa55w0rd",
        "ducklake:postgres:dbname=lake host=127.0.0.1 port=1 password = 'pa55 w0rd'",
        "ducklake:postgres:dbname=lake host=127.0.0.1 port=1 password=pa55=w0rd",
        "ducklake:postgres:postgresql://me:pa55@w0rd@127.0.0.1:1/lake",
        "ducklake:mysql:db=lake passwd=pa55w0rd",
        "postgres:dbname=lake password=pa55w0rd",
        "md:lake?motherduck_token=pa55w0rd",
        "Postgres:dbname=lake password=pa55w0rd",
        "DUCKLAKE:postgres:dbname=lake password=pa55w0rd",
        "postgres_scanner:dbname=lake password=pa55w0rd",
        "postgres:dbname=lake password=pa55w0rd" + 300 * " ",
        "dbname=lake password=pa55w0rd",
    ],
)
def test_a_duckdb_shows_no_part_of_a_password(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    def refuse(database: str) -> None:  # the extensions that open them may quote all of it
        raise duckdb.IOException(
            f'Unable to connect at "{database}": no {database.rpartition(" ")[2]}'
        )

    monkeypatch.setattr(duckdb, "connect", refuse)
    destination = DuckDBTables(database=database)
    with pytest.raises(OctogenTableError) as raised:
        destination.try_out()
    shown = f"{raised.value} {destination.place} {destination.pool} {destination!r}"
    assert not re.search("55|w0rd", shown), shown
    assert "Unable to connect" in shown
    assert "Unable" not in str(raised.value.__cause__)
    kind, colon, _ = database.rpartition("dbname")[0].rpartition(":")
    assert destination.place.startswith(f"DuckDB ({kind}{colon}")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            "TransactionException: Commit: failed to offload data block of size 256.0 KiB",
            "disk space",
        ),
        ("ConversionException: Could not convert string 'Conflict on price'", "permissions"),
    ],
)
def test_an_error_of_duckdb_is_told_by_its_kind(
    error: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    kind, _, text = error.partition(": ")

    def refuse(_: str) -> None:
        raise getattr(duckdb, kind)(text)

    monkeypatch.setattr(duckdb, "connect", refuse)
    with pytest.raises(OctogenTableError) as raised:
        DuckDBTables(database="shop.duckdb").try_out()
    assert advice in str(raised.value)
    assert "another run" not in str(raised.value)


def test_a_ducklake_spills_into_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda _: connect())
    with DuckDBTables(database="ducklake:shop.ducklake").connect() as connection:
        assert isinstance(connection, DuckDBConnection)
        ((folder,),) = connection.query("SELECT current_setting('temp_directory')")
    assert Path(folder).parent == Path(tempfile.gettempdir())


def test_a_duckdb_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    result = one_table(tmp_path, DuckDBTables(database=str(tmp_path / "no" / "shop.duckdb")))
    assert "DuckDB (" in failure(result)
    assert "shop.duckdb" in failure(result)


@pytest.mark.parametrize(
    ("limit", "sent"), [({}, "100000000000"), ({"max_bytes_billed": None}, None)]
)
def test_a_script_of_bigquery_is_billed_for_100_gb_at_most_unless_there_is_no_limit(
    limit: dict[str, Any], sent: str | None, tmp_path: Path
) -> None:
    jobs: list[dict[str, Any]] = []

    def answer(_: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not path.partition("?")[0].endswith("/jobs"):
            return 200, {"datasetReference": {"projectId": "my-project", "datasetId": "octogen"}}
        jobs.append(body)
        return refused(400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed")

    with serving(answer, tmp_path), pytest.raises(OctogenTableError, match="max_bytes_billed"):
        BigQueryTables(project="my-project", **limit).try_out()
    assert jobs[0]["configuration"]["query"].get("maximumBytesBilled") == sent


def test_snapshots_of_another_io_manager_are_refused(tmp_path: Path) -> None:
    @dg.asset
    def products() -> int:
        return 1

    table = od.build_table_asset(products, DuckDBTables(database=str(tmp_path / "shop.duckdb")))
    result = dg.materialize(
        [products, table],
        resources={"io_manager": dg.FilesystemIOManager(base_dir=str(tmp_path))},
        raise_on_error=False,
    )
    assert "products_table needs a ParquetSnapshotIOManager" in failure(result)
    assert not is_retried(result)


def test_a_table_that_was_made_without_partitions_is_not_mixed_with_them(tmp_path: Path) -> None:
    warehouse = DuckDB(tmp_path)
    assert one_table(tmp_path, warehouse.destination).success
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    project.store(pl.DataFrame({"uuid": ["a"]}), "acme")
    result = project.load("acme", raise_on_error=False)
    assert "'partition'" in failure(result)
    assert warehouse.rows("products") == [{"uuid": "a"}]


@pytest.mark.slow
def test_a_code_location_without_a_table_imports_nothing_of_it() -> None:
    program = """
import sys
import octogen_dagster
octogen_dagster.build_products_asset("products")
loaded = [name for name in sys.modules if name.startswith("octogen_dagster.tables")]
drivers = {"duckdb", "adbc_driver_manager", "google.cloud.bigquery"} & set(sys.modules)
assert not loaded and not drivers, (loaded, drivers)
octogen_dagster.build_table_asset
destination = octogen_dagster.tables.PostgresTables(uri="postgresql://host/shop")
drivers = {"duckdb", "adbc_driver_manager", "google.cloud.bigquery"} & set(sys.modules)
assert not drivers, drivers
"""
    subprocess.run([sys.executable, "-c", program], check=True)
