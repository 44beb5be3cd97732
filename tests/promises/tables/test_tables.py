"""Tables: what is in them is what was published, exactly, once and whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import build_table_asset, catalog_days, snapshot_days
from octogen_dagster.errors import OctogenTableError, Persistence
from octogen_dagster.frames.columns import COLUMN_DESCRIPTIONS
from octogen_dagster.frames.kinds import TableKind
from octogen_dagster.snapshots.asset_decorator import snapshot_asset
from octogen_dagster.tables import PostgresTables
from octogen_dagster.tables.postgres import PostgresConnection
from tests.messages import Golden
from tests.pgbouncer import pgbouncer, running_pgbouncer
from tests.promises.tables.table_runs import (
    CATALOGS,
    QUIET,
    Project,
    assert_same_rows,
    expected_rows,
    product,
    products_frame,
)
from tests.results import failure, is_retried, materialized
from tests.servers.buckets import S3Bucket
from tests.warehouses import DuckDB, Lake, Postgres, Warehouse

ROOT = Path(__file__).parents[3]
_LOWS = pl.Struct({"low": pl.List(pl.Struct({"in": pl.Float64}))})
DAY = datetime(2026, 11, 1, 6, tzinfo=UTC)


def boots(count: int, price: float = 10.0, day: int = 0, **columns: pl.Expr) -> pl.DataFrame:
    at = DAY + timedelta(days=day)
    return products_frame([product(number, price, at) for number in range(count)], **columns)


def test_a_table_has_each_value_of_the_snapshot(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.store(boots(25))
    shown = project.load_metadata()
    assert_same_rows(warehouse.rows("products"), expected_rows(project.stored()))
    assert shown["dagster/row_count"] == 25
    assert shown["dagster/table_name"].endswith(".products")
    assert shown["octogen/loaded"] is True
    assert shown["octogen/seconds"] > 0
    assert "snow" not in shown["octogen/destination"].replace("Snowflake", "").replace(
        "fakesnow", ""
    )


@pytest.mark.long
def test_a_snapshot_replaces_all_rows_and_none_leaves_none(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    project = Project(tmp_path, warehouse.destination)
    for frame in (boots(25), boots(7, 11.0), boots(0), boots(3)):
        project.store(frame)
        assert project.load().success
        assert_same_rows(warehouse.rows("products"), expected_rows(project.stored()))


@pytest.mark.long
@pytest.mark.parametrize(
    ("partitions_def", "keys"),
    [
        (CATALOGS, ["acme", "strada"]),
        (snapshot_days("2026-11-01"), ["2026-11-01", "2026-11-02"]),
        (
            catalog_days("2026-11-01"),
            [
                dg.MultiPartitionKey({"catalog": "a's%2Fb", "day": f"2026-11-0{day}"})
                for day in (1, 2)
            ],
        ),
    ],
)
def test_a_partition_replaces_its_own_rows_and_no_others(
    partitions_def: dg.PartitionsDefinition[Any],
    keys: list[Any],
    warehouse: Warehouse,
    tmp_path: Path,
) -> None:
    project = Project(tmp_path, warehouse.destination, partitions_def)
    project.instance.add_dynamic_partitions("octogen_catalogs", ["a's%2Fb"])
    stored: dict[Any, pl.DataFrame] = {}
    for key, frame in [(keys[0], boots(4)), (keys[1], boots(3)), (keys[0], boots(2, 9.0))]:
        stored[key] = frame
        project.store(frame, key)
        assert project.load(key).success
    stored[keys[1]] = boots(0)
    project.store(stored[keys[1]], keys[1])
    project.load(keys[1])
    assert_same_rows(
        warehouse.rows("products"),
        [row for key in keys for row in expected_rows(stored[key], partition=str(key))],
    )


def test_each_scalar_keeps_its_type(warehouse: Warehouse, tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "text": ["a'b\\c\n“é”", None],
            "tiny": pl.Series([1, None], dtype=pl.Int8),
            "whole": [2**62, None],
            "unsigned": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
            "price": [0.1, None],
            "single": pl.Series([0.5, None], dtype=pl.Float32),
            "exact": [Decimal("12345.678900001"), None],
            "flag": [True, None],
            "day": [date(2026, 1, 2), None],
            "clock": [time(1, 2, 3), None],
            "at": [moment, None],
            "at_ns": pl.Series([moment, None]).dt.cast_time_unit("ns"),
            "in_zone": pl.Series([moment, None]).dt.convert_time_zone("Asia/Tokyo"),
            "local": [datetime(2026, 1, 2, 3, 4, 5, 6), None],
            "bytes": [b"\x00a", None],
            "kind": pl.Series(["new", None], dtype=pl.Enum(["new", "old"])),
            "camelCase": ["x", None],
            "select": ["y", None],
            "all_null": pl.Series([None, None], dtype=pl.Null),
        }
    )
    lacks = {"clock"} if isinstance(warehouse, Lake) else set()  # it has no times of day
    project = Project(tmp_path, warehouse.destination)
    project.store(frame.drop(lacks))
    shown = project.load_metadata()
    (row,) = [row for row in warehouse.rows("products") if row["text"] is not None]
    names = {name.lower(): value for name, value in row.items()}
    assert Decimal(str(names.pop("unsigned"))) == 2**64 - 1
    assert names == {
        "text": "a'b\\c\n“é”",
        "tiny": 1,
        "whole": 2**62,
        "price": 0.1,
        "single": 0.5,
        "exact": Decimal("12345.678900001"),
        "flag": True,
        "day": date(2026, 1, 2),
        **({} if lacks else {"clock": time(1, 2, 3)}),
        "at": moment,
        "at_ns": moment,
        "in_zone": moment,
        "local": datetime(2026, 1, 2, 3, 4, 5, 6),
        "bytes": b"\x00a",
        "kind": "new",
        "camelcase": "x",
        "select": "y",
    }
    columns = {column.name: column.type for column in shown["dagster/column_schema"].columns}
    assert columns["price"] == "float"
    assert columns["at"] == "timestamp"
    assert "all_null" not in columns


@pytest.mark.parametrize(
    ("values", "dtype", "shown"),
    [
        ([Decimal(9 * 10**28), Decimal(10**29)], pl.Decimal(38, 0), f"{10**29}"),
        ([Decimal("0.1234567891")], pl.Decimal(38, 10), "0.1234567891"),
        ([2**100], pl.Int128(), f"{2**100}"),
        ([3723_000_000_123], pl.Time(), "01:02:03.000000123"),
        ([1_000_000_001], pl.Datetime("ns"), "1970-01-01T00:00:01.000000001"),
        ([[0.5], [1.5, float("nan")]], pl.List(pl.Float64), "NaN"),
        ([{"low": [{"in": float("inf")}]}], _LOWS, "inf"),
    ],
)
def test_a_value_that_a_column_cannot_hold_is_refused_by_name(
    values: list[Any], dtype: pl.DataType, shown: str, tmp_path: Path, golden: Golden
) -> None:
    paths: dict[Any, str] = {pl.List: "value[]", pl.Struct: "value.low[].in"}
    path = paths.get(dtype.base_type(), "value")
    warehouse = DuckDB(tmp_path)
    project = Project(tmp_path, warehouse.destination)
    series = pl.Series("value", values, dtype=None if dtype.is_temporal() else dtype, strict=False)
    project.store(pl.DataFrame([series.cast(dtype)]))
    text = failure(project.load(raise_on_error=False))
    golden("errors", text.partition("\n")[0])
    assert all(part in text for part in (repr(path), "octogen.products", shown))


@pytest.mark.parametrize("value", [[b"x"], {"inner": [[b"x"]]}])
def test_bytes_in_a_list_are_refused_by_name(value: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, DuckDB(tmp_path).destination)
    project.store(pl.DataFrame([{"digests": value}]))
    result = project.load(raise_on_error=False)
    assert "'digests'" in failure(result)
    assert "`columns`" in failure(result)
    assert not is_retried(result)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["numeric(10,2)", "timestamp(0) with time zone", "time(3) without time zone", "varchar(2)"],
)
def test_a_column_that_changes_values_is_refused_by_name(
    kind: str, postgres: Postgres, tmp_path: Path
) -> None:
    values = {
        "numeric(10,2)": Decimal("1.239"),
        "timestamp(0) with time zone": DAY + timedelta(microseconds=1),
        "time(3) without time zone": time(1, 2, 3, 4),
        "varchar(2)": "XS  ",
    }
    project = Project(tmp_path, postgres.destination)
    project.store(pl.DataFrame({"value": [values[kind]]}))
    project.load()
    postgres.execute(f"ALTER TABLE octogen.products ALTER value TYPE {kind} USING value::{kind}")
    rounded = postgres.rows("products")
    project.publish()
    text = failure(project.load(raise_on_error=False))
    assert "'value'" in text
    assert "octogen.products" in text
    assert postgres.rows("products") == rounded != project.frames[None].to_dicts()


def test_nested_values_are_nested_or_json(warehouse: Warehouse, tmp_path: Path) -> None:
    nested = {
        "struct": {"number": 1.5, "texts": ["a", None], "at": DAY, "whole": 2**53 + 1},
        "list": [{"sku": "x", "sizes": pl.Series([1, 2], dtype=pl.UInt16)}],
        "lists": [["“é”"], []],
    }
    project = Project(tmp_path, warehouse.destination)
    project.store(pl.DataFrame([nested, dict.fromkeys(nested)]))
    project.load()
    rows = warehouse.rows("products")
    assert {"struct": None, "list": None, "lists": None} in rows
    (row,) = [row for row in rows if row["list"] is not None]
    at = row["struct"].pop("at")
    assert (at if isinstance(warehouse, Lake) else datetime.fromisoformat(at)) == DAY
    assert row == {
        "struct": {"number": 1.5, "texts": ["a", None], "whole": 2**53 + 1},
        "list": [{"sku": "x", "sizes": [1, 2]}],
        "lists": [["“é”"], []],
    }


def test_structs_in_lists_are_those_of_their_row(warehouse: Warehouse, tmp_path: Path) -> None:
    def variants(number: int) -> list[dict[str, Any] | None]:
        colours = [{"label": f"{number}-{each}"} if each % 3 else None for each in range(number)]
        return [{"sku": f"{each}", "color": colour} for each, colour in enumerate(colours)]

    project = Project(tmp_path, warehouse.destination)
    rows: list[dict[str, Any]] = [
        {
            "uuid": f"uuid-{number:02}",
            "variants": variants(number),
            "details": {"clips": [{"at": number}, None] * (number % 4), "title": "a title"},
        }
        for number in range(40)
    ]
    project.store(pl.DataFrame(rows, infer_schema_length=None))
    project.load()
    assert sorted(warehouse.rows("products"), key=lambda row: str(row["uuid"])) == rows


def test_nul_is_removed_and_counted(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.frames[None] = pl.DataFrame(
        {
            "text": ["a\0\0b", "plain", None],
            "json": [["\0x", "\\u0000", "\\\0"], ["\0\0\0"], ["plain"]],
        }
    )
    project.publish()
    shown = project.load_metadata()
    if isinstance(warehouse, Lake):  # whose lists may have it
        assert shown["octogen/texts_with_nul"] == 1
        assert {row["text"] for row in warehouse.rows("products")} == {"ab", "plain", None}
        return
    assert shown["octogen/texts_with_nul"] == 3
    expected: list[dict[str, Any]] = [
        {"text": "ab", "json": ["x", "\\u0000", "\\"]},
        {"text": "plain", "json": [""]},
        {"text": None, "json": ["plain"]},
    ]
    assert_same_rows(warehouse.rows("products"), expected)


def test_a_new_column_is_added_and_none_is_dropped(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    frames = {
        "acme": pl.DataFrame({"uuid": ["a"], "gone": [1]}),
        "strada": pl.DataFrame({"uuid": ["s"], "new": [0.5], "list": [["x"]]}),
    }
    for key, frame in frames.items():
        project.store(frame, key)
        project.load(key)
    expected = [row for key in frames for row in expected_rows(frames[key], partition=key)]
    assert_same_rows(warehouse.rows("products"), expected)
    assert {"uuid", "gone", "new", "list", "partition"} == set(warehouse.rows("products")[0])


def test_a_load_that_fails_leaves_no_new_column(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.store(pl.DataFrame({"uuid": ["a"]}))
    project.load()
    small = pl.Series([Decimal("0.1234567891")], dtype=pl.Decimal(38, 10))
    project.store(pl.DataFrame({"uuid": ["b"], "small": small}))
    assert "0.1234567891" in failure(project.load(raise_on_error=False))
    assert warehouse.rows("products") == [{"uuid": "a"}]


@pytest.mark.slow
def test_a_server_that_fails_while_rows_are_inserted_has_no_new_column(
    postgres: Postgres, tmp_path: Path
) -> None:
    project = Project(tmp_path, postgres.destination)
    project.store(pl.DataFrame({"uuid": ["a"]}))
    project.load()
    for statement in (
        "CREATE FUNCTION octogen.fill() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$",
        "CREATE TRIGGER fill BEFORE INSERT ON octogen.products "
        "FOR EACH ROW EXECUTE FUNCTION octogen.fill()",
    ):
        postgres.execute(statement)
    project.store(pl.DataFrame({"uuid": ["b"], "new": [1]}))
    assert "disk space" in failure(project.load(raise_on_error=False))
    assert postgres.rows("products") == [{"uuid": "a"}]


@pytest.mark.slow
def test_a_number_of_another_type_is_stored_without_loss_or_refused(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    project = Project(tmp_path, warehouse.destination)
    for values in ([1, 2], [3.0, None]):
        project.store(pl.DataFrame({"stock": values}))
        assert project.load().success
        assert_same_rows(warehouse.rows("products"), expected_rows(project.frames[None]))
    project.store(pl.DataFrame({"stock": [1.5]}))
    result = project.load(raise_on_error=False)
    assert "'stock'" in failure(result)
    assert "1.5" in failure(result)
    assert not is_retried(result)
    assert_same_rows(warehouse.rows("products"), [{"stock": 3}, {"stock": None}])


def test_a_column_of_another_type_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.store(pl.DataFrame({"stock": [1]}))
    project.load()
    project.store(pl.DataFrame({"stock": ["many"]}))
    text = failure(project.load(raise_on_error=False))
    assert "'stock'" in text
    assert ".products" in text
    assert_same_rows(warehouse.rows("products"), [{"stock": 1}])


@pytest.mark.slow
def test_a_repeated_run_sends_nothing(
    warehouse: Warehouse, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.store(boots(5))
    assert project.load_metadata()["octogen/loaded"] is True
    (noted,) = warehouse.rows("_octogen_loads")
    shown = project.load_metadata()
    assert shown["octogen/loaded"] is False
    assert shown["dagster/row_count"] == 5
    assert warehouse.rows("_octogen_loads") == [noted]
    assert noted["row_count"] == 5
    project.publish()  # the same rows, in another snapshot
    assert project.load_metadata()["octogen/loaded"] is True


@pytest.mark.long
def test_rows_that_somebody_else_removed_are_loaded_again(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    project = Project(tmp_path, warehouse.destination, CATALOGS)
    for key in ("acme", "strada"):
        project.store(boots(5), key)
        project.load(key)
    table = f"{warehouse.schema}.products"
    warehouse.execute(
        f"DELETE FROM {table} WHERE uuid = 'uuid-1' AND {warehouse.quoted('partition')} = 'acme'"
    )
    assert project.load_metadata("strada")["octogen/loaded"] is False
    assert project.load_metadata("acme")["octogen/loaded"] is True
    assert len(warehouse.rows("products")) == 10


def test_a_table_that_somebody_else_dropped_is_made_again(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.store(boots(5))
    project.load()
    warehouse.execute(f"DROP TABLE {warehouse.schema}.products")
    assert project.load_metadata()["octogen/loaded"] is True
    assert_same_rows(warehouse.rows("products"), expected_rows(project.stored()))


def test_only_some_columns_are_loaded(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination, columns=["uuid", "rating"])
    project.store(boots(3))
    project.load()
    whole = Project(tmp_path, warehouse.destination)
    expected = expected_rows(project.stored().select("uuid", "rating"))
    assert_same_rows(warehouse.rows("products"), expected)
    assert whole.load_metadata()["octogen/loaded"] is True  # the snapshot is the same
    assert_same_rows(warehouse.rows("products"), expected_rows(project.stored()))


def test_tables_and_columns_are_described(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.store(boots(1))
    shown = project.load_metadata()
    if not warehouse.has_comments:
        return
    comments = warehouse.comments("products")
    assert "asset products" in comments.pop("")
    if not comments:  # fakesnow keeps none on columns
        return
    assert comments["current_price"] == COLUMN_DESCRIPTIONS["current_price"]
    assert "Brand as the merchant shows it" in comments["brand_name"]
    lineage = shown["dagster/column_lineage"].deps_by_column
    assert lineage["brand_name"][0].column_name == "brand"


@pytest.mark.slow
def test_postgres_has_indexes_of_the_key_and_of_the_partitions(
    postgres: Postgres, tmp_path: Path
) -> None:
    project = Project(tmp_path, postgres.destination, CATALOGS)
    project.store(boots(3), "acme")
    project.load("acme")
    found = postgres.query(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'octogen' AND tablename = 'products'"
    )
    indexes = sorted(row["indexdef"].partition(" ON ")[2] for row in found)
    table = "octogen.products USING btree"
    assert indexes == [f"{table} (catalog_key, uuid, partition)", f"{table} (partition)"]


@pytest.mark.slow
def test_a_key_that_becomes_null_is_loaded(warehouse: Warehouse, tmp_path: Path) -> None:
    project = Project(tmp_path, warehouse.destination)
    for key in ("acme", None):
        project.store(boots(3, catalog_key=pl.lit(key, dtype=pl.String)))
        project.load()
        assert_same_rows(warehouse.rows("products"), expected_rows(project.stored()))


@pytest.mark.slow
def test_only_a_key_that_cannot_be_null_is_a_primary_key(
    postgres: Postgres, tmp_path: Path
) -> None:
    for brands, key in ((["Acme"], "{brand}"), (["Acme", None], None)):
        frame = pl.DataFrame({"brand": brands}, schema={"brand": pl.String})
        kind = TableKind(frame.schema, key=("brand",), key_has_nulls=key is None)
        asset = snapshot_asset({}, {"name": "products"}, kind=kind)(lambda *_, made=frame: made)
        table = build_table_asset(asset, postgres.destination)
        assert materialized([asset, table], tmp_path, run_config=QUIET).success
        assert len(postgres.rows("products")) == len(brands)
        found = postgres.query(
            "SELECT array_agg(attname::text)::text AS key FROM pg_index JOIN pg_attribute "
            "ON attrelid = indrelid AND attnum = ANY(indkey) "
            "WHERE indrelid = 'octogen.products'::regclass AND indisprimary"
        )
        assert found == [{"key": key}]
        postgres.execute("DROP TABLE octogen.products")


@pytest.mark.slow
def test_the_comment_of_a_user_on_a_table_stays(postgres: Postgres, tmp_path: Path) -> None:
    project = Project(tmp_path, postgres.destination)
    for frame in (boots(1), boots(1, added=pl.lit(1))):
        project.store(frame)
        project.load()
        if frame.width == boots(1).width:
            postgres.execute("COMMENT ON TABLE octogen.products IS 'Ask Jo.'")
            postgres.execute("COMMENT ON COLUMN octogen.products.title IS 'As shown.'")
    comments = postgres.comments("products")
    assert "added" in postgres.rows("products")[0]
    assert (comments[""], comments["title"]) == ("Ask Jo.", "As shown.")


@pytest.mark.long
def test_a_trigger_that_drops_rows_fails_the_check_of_the_rows(
    postgres: Postgres, tmp_path: Path
) -> None:
    project = Project(tmp_path, postgres.destination)
    project.store(boots(5))
    (check,) = project.load().get_asset_check_evaluations()
    assert check.passed
    for statement in (
        "CREATE FUNCTION octogen.drop_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.uuid = 'uuid-1' THEN RETURN NULL; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER drop_one BEFORE INSERT ON octogen.products "
        "FOR EACH ROW EXECUTE FUNCTION octogen.drop_one()",
    ):
        postgres.execute(statement)
    project.publish()
    (check,) = project.load().get_asset_check_evaluations()
    assert not check.passed
    assert check.check_name == "table_rows"
    counts = {"octogen/rows_in_table": 4, "octogen/rows_in_snapshot": 5}
    assert {name: check.metadata[name].value for name in counts} == counts


@pytest.mark.long
@pytest.mark.skipif(not pgbouncer(), reason="needs PgBouncer: apt-get install pgbouncer")
def test_loads_work_behind_a_pooler_in_transaction_mode(
    postgres_server: Mapping[str, str], tmp_path: Path
) -> None:
    with closing(Postgres(postgres_server)) as warehouse, running_pgbouncer(postgres_server) as own:
        port = postgres_server["DAGSTER_POSTGRES_PORT"]
        uri = warehouse.uri.replace(f":{port}/", f":{own['DAGSTER_POSTGRES_PORT']}/")
        project = Project(tmp_path, PostgresTables(uri=uri))
        for frame in (boots(25), boots(7, 11.0), boots(0), boots(3, added=pl.lit(1))):
            project.store(frame)
            assert project.load().success
            assert_same_rows(warehouse.rows("products"), expected_rows(project.stored()))
        assert project.load_metadata()["octogen/loaded"] is False
        PostgresTables(uri=uri).try_out()


@pytest.mark.slow
def test_a_statement_that_took_too_long_passes_and_says_which_setting(
    postgres: Postgres, tmp_path: Path
) -> None:
    project = Project(tmp_path, postgres.destination)
    project.store(boots(3))
    project.load()
    postgres.execute(
        "CREATE FUNCTION octogen.wait() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$"
    )
    postgres.execute(
        "CREATE TRIGGER wait BEFORE INSERT ON octogen.products "
        "FOR EACH ROW EXECUTE FUNCTION octogen.wait()"
    )
    database = postgres.query("SELECT current_database() AS name")[0]["name"]
    postgres.execute(f"ALTER DATABASE {database} SET statement_timeout = '300ms'")
    project.publish()
    result = project.load(raise_on_error=False)
    assert "canceling statement due to statement timeout (57014)" in failure(result)
    assert "statement_timeout" in failure(result)
    assert is_retried(result)


def loader_of(postgres: Postgres, statement: str) -> PostgresTables:
    """The destination with a user of its own, after a statement."""
    database = postgres.query("SELECT current_database() AS name")[0]["name"]
    loader = f"loader_{database}"
    postgres.execute(f"CREATE ROLE {loader} LOGIN PASSWORD 'pa55'")
    postgres.execute(f"GRANT CREATE ON DATABASE {database} TO {loader}")
    postgres.execute(statement.format(database=database, loader=loader))
    server = postgres.uri.rpartition("@")[2]
    return PostgresTables(uri=f"postgresql://{loader}:pa55@{server}")


@pytest.mark.slow
def test_a_user_without_temporary_is_told_so(postgres: Postgres, tmp_path: Path) -> None:
    revoke = "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"
    destination = loader_of(postgres, revoke)
    with pytest.raises(OctogenTableError, match="TEMPORARY"):
        destination.try_out()
    project = Project(tmp_path, destination)
    project.store(boots(3))
    result = project.load(raise_on_error=False)
    assert "TEMPORARY" in failure(result)
    assert not is_retried(result)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "text", "persistence"),
    [
        ("ALTER ROLE {loader} PASSWORD 'other'", "user and password", Persistence.PERMANENT),
        ("DROP OWNED BY {loader}; DROP ROLE {loader}", "user and password", Persistence.PERMANENT),
        ("ALTER ROLE {loader} CONNECTION LIMIT 0", "pool limit", Persistence.PASSING),
    ],
)
def test_a_login_that_is_refused_is_told_by_its_reason(
    statement: str, text: str, persistence: Persistence, postgres: Postgres
) -> None:
    destination = loader_of(postgres, statement)
    with pytest.raises(OctogenTableError, match=text) as raised:
        destination.try_out()
    assert raised.value.persistence is persistence


def test_a_database_that_is_not_there_is_told(postgres: Postgres) -> None:
    destination = PostgresTables(uri=f"{postgres.uri}_2")
    with pytest.raises(OctogenTableError, match="Create the database") as raised:
        destination.try_out()
    assert raised.value.persistence is Persistence.PERMANENT


@pytest.mark.slow
def test_postgres_locks_nothing_to_upload_and_rows_alone_to_replace_them(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = (
        "SELECT coalesce(relname, locktype) AS name, mode FROM pg_locks LEFT JOIN pg_class ON "
        "pg_class.oid = relation WHERE mode <> 'AccessShareLock' AND "
        "(relname IN ('products', '_octogen_loads') OR locktype = 'advisory')"
    )
    held: list[list[Any]] = []
    project = Project(tmp_path, postgres.destination, CATALOGS)

    def watched(name: str) -> None:
        work = getattr(PostgresConnection, name)

        def watching(self: PostgresConnection, *arguments: Any, **options: Any) -> None:
            held.append(postgres.query(locks))
            work(self, *arguments, **options)

        monkeypatch.setattr(PostgresConnection, name, watching)

    project.store(boots(3), "acme")
    project.load("acme")
    watched("ingest")
    watched("insert")
    for catalog, changed in [
        ("strada", {"_octogen_loads"}),
        ("acme", {"_octogen_loads", "products"}),
    ]:
        project.store(boots(2), catalog)
        project.load(catalog)
        uploading, inserting = held
        assert uploading == []
        assert {(lock["name"], lock["mode"]) for lock in inserting} == {
            (name, "RowExclusiveLock") for name in changed
        }
        held.clear()
    project.store(boots(2, new=pl.lit(1)), "acme")
    project.load("acme")
    assert held[0] == []


@pytest.mark.slow
def test_a_transaction_that_was_idle_for_too_long_is_told(postgres: Postgres) -> None:
    option = "options=-c%20idle_in_transaction_session_timeout%3D100ms"
    destination = PostgresTables(uri=f"{postgres.uri}?{option}")
    with destination.connect() as connection:
        connection.execute("BEGIN")
        while postgres.query(
            "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' "
            "AND datname = current_database()"
        ):
            pass
        with pytest.raises(OctogenTableError) as raised:
            connection.execute("SELECT 1")
    assert "idle_in_transaction_session_timeout" in str(raised.value)
    assert "password" not in str(raised.value)
    assert raised.value.persistence is Persistence.PASSING


@pytest.mark.long
def test_a_disk_that_is_full_under_duckdb_is_no_conflict(tmp_path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from tests.promises.tables.table_runs import Project
from tests.promises.tables.test_tables import boots
from tests.results import failure
from tests.warehouses import DuckDB

folder = Path({str(tmp_path)!r})
project = Project(folder, DuckDB(folder).destination)
project.store(boots(3))
project.load()
project.store(boots(20_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
print(failure(project.load(raise_on_error=False)))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.check_output(
        [sys.executable, "-c", program], text=True, cwd=ROOT, env=environment
    )
    assert "Could not write file" in printed
    assert "disk space" in printed
    assert "conflict" not in printed
    assert len(DuckDB(tmp_path).rows("products")) == 3


def test_values_that_are_too_large_for_duckdbs_memory_are_told_with_the_limit(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path, DuckDB(tmp_path).destination)
    project.store(pl.DataFrame({"text": ["x" * 40_000_000] * 3}))
    text = failure(project.load(raise_on_error=False))
    assert "64MB" in text
    assert "`columns`" in text
    assert "conflict" not in text


@pytest.mark.slow
@pytest.mark.parametrize("warehouse", ["duckdb", "postgres"], indirect=True)
def test_a_snapshot_in_a_bucket_without_rows_is_loaded(
    warehouse: Warehouse, bucket: S3Bucket, tmp_path: Path
) -> None:
    project = Project(tmp_path, warehouse.destination)
    project.io_manager = bucket.io_manager()
    for frame in (boots(0), boots(3), boots(0)):
        project.store(frame)
        assert project.load().success
        assert len(warehouse.rows("products")) == frame.height
