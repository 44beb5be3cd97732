"""Loads of a snapshot into a table, each alone in its process.

`python -m benchmarks.table_loads WHAT SNAPSHOT TARGET FOLDER` measures one. TARGET is the
URI of a PostgreSQL database or the path of a DuckDB file. `bare` and `dlt` load the same columns as
`asset` does, nested ones as JSON. A small load comes first, so that imports are not measured.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from benchmarks.history import timed
from octogen_dagster import ParquetSnapshotIOManager, build_table_asset
from octogen_dagster.tables import DuckDBTables, PostgresTables
from octogen_dagster.tables.destination import TableDestination

_FLATTENED = ("brand", "rating")
_FEW = 1_000
_CATALOGS = 200
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def _materialize(base: Path, target: str, table: str, catalogs: Sequence[str] = ()) -> None:
    """Load what is stored in a folder as the snapshots of an asset, one or those of catalogs."""
    partitions = dg.StaticPartitionsDefinition(list(catalogs)) if catalogs else None
    policy = dg.BackfillPolicy.single_run() if catalogs else None

    @dg.asset(partitions_def=partitions, backfill_policy=policy)
    def products() -> None: ...

    destination: TableDestination = DuckDBTables(database=target)
    if target.startswith("postgresql:"):
        destination = PostgresTables(uri=target)
    loaded = build_table_asset(products, destination, table=table, backfill_policy=policy)
    ends = {"start": catalogs[0], "end": catalogs[-1]} if catalogs else {}
    dg.materialize(
        [products, loaded],
        selection=[loaded],
        resources={"io_manager": ParquetSnapshotIOManager(base_dir=str(base))},
        run_config=_QUIET,
        tags={f"dagster/asset_partition_range_{end}": key for end, key in ends.items()},
    )


def asset(snapshot: Path, target: str, folder: Path) -> dict[str, float]:
    """Load by an asset, in a run of Dagster."""
    for name, file in (("warm_up", _few(snapshot, folder)), ("asset", snapshot)):
        (folder / name).mkdir()
        os.link(file, folder / name / "products.parquet")
    _materialize(folder / "warm_up", target, "warm_up")
    return timed(lambda: _materialize(folder / "asset", target, "asset"))


def catalogs(snapshot: Path, target: str, folder: Path) -> dict[str, float]:
    """Load the same rows as those of many catalogs, in one run."""
    keys = [f"catalog-{number:03}" for number in range(_CATALOGS)]
    stored = folder / "catalogs" / "products"
    stored.mkdir(parents=True)
    frame = pl.read_parquet(snapshot)
    rows = -(-len(frame) // _CATALOGS)
    for number, key in enumerate(keys):
        part = frame.slice(number * rows, rows)
        part.write_parquet(stored / f"{key}.parquet", compression="zstd", compression_level=1)
    del frame
    _materialize(folder / "catalogs", target, "warm_up", keys[:2])
    return timed(lambda: _materialize(folder / "catalogs", target, "catalogs", keys))


def bare(snapshot: Path, target: str, folder: Path) -> dict[str, float]:
    """Load by the statement that a script would use."""
    load = _ingest if target.startswith("postgresql:") else _insert
    load(_few(snapshot, folder), target, "bare_warm_up")
    return timed(lambda: load(snapshot, target, "bare"))


def _ingest(snapshot: Path, target: str, table: str) -> None:
    import adbc_driver_postgresql.dbapi as driver

    frame = pl.scan_parquet(snapshot).select(_columns(snapshot)).collect(engine="streaming")
    with driver.connect(target) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(table, frame, mode="create")
        connection.commit()


def _insert(snapshot: Path, target: str, table: str) -> None:
    import duckdb

    values = []
    for name, dtype in pl.read_parquet_schema(snapshot).items():
        if name in _FLATTENED and isinstance(dtype, pl.Struct):
            values += [f"{name}.{field.name} AS {name}_{field.name}" for field in dtype.fields]
        else:
            values.append(f"to_json({name}) AS {name}" if dtype.is_nested() else name)
    source = f"SELECT {', '.join(values)} FROM read_parquet('{snapshot}')"
    with closing(duckdb.connect(target)) as connection:
        connection.execute(f"CREATE TABLE {table} AS {source} LIMIT 0")
        connection.execute(f"INSERT INTO {table} {source}")


def dlt(snapshot: Path, target: str, folder: Path) -> dict[str, float]:
    """Load by dlt, as docs/tables.md does for destinations without a driver here."""
    few = _few(snapshot, folder)
    _run_dlt(few, target, folder / "warm_up", "warm_up")
    return timed(lambda: _run_dlt(snapshot, target, folder / "pipelines", "products"))


def _run_dlt(snapshot: Path, target: str, folder: Path, table: str) -> None:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt

    frame = pl.scan_parquet(snapshot).select(_columns(snapshot)).collect(engine="streaming")
    nested = {name for name, kind in pl.read_parquet_schema(snapshot).items() if kind.is_nested()}
    hints: Any = {name: {"data_type": "json"} for name in nested.difference(_FLATTENED)}
    of_duckdb = dlt.destinations.duckdb(target)
    of_postgres = dlt.destinations.postgres(target)
    dlt.pipeline(
        "tables",
        pipelines_dir=str(folder),
        destination=of_postgres if target.startswith("postgresql:") else of_duckdb,
        dataset_name="by_dlt",
    ).run(
        dlt.resource(
            frame.to_arrow(compat_level=pl.CompatLevel.oldest()),
            name=table,
            write_disposition={"disposition": "merge", "strategy": "delete-insert"},
            merge_key="catalog_key",
            columns=hints,
        ),
        loader_file_format="parquet",
    )


def _columns(snapshot: Path) -> list[pl.Expr]:
    """The columns of the table: fields of two structs, and JSON of what else is nested."""
    columns = []
    for name, dtype in pl.read_parquet_schema(snapshot).items():
        if name in _FLATTENED and isinstance(dtype, pl.Struct):
            fields = [field.name for field in dtype.fields]
            columns += [pl.col(name).struct.field(each).alias(f"{name}_{each}") for each in fields]
        elif dtype.is_nested():
            columns.append(pl.struct(pl.col(name)).struct.json_encode().alias(name))
        else:
            columns.append(pl.col(name))
    return columns


def _few(snapshot: Path, folder: Path) -> Path:
    few = folder / "few.parquet"
    pl.read_parquet(snapshot, n_rows=_FEW).write_parquet(few)
    return few


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", dg.BetaWarning)
    what, snapshot, target, folder = sys.argv[1:]
    work = {"asset": asset, "catalogs": catalogs, "bare": bare, "dlt": dlt}[what]
    Path(folder).mkdir(parents=True)
    print("\n" + json.dumps(work(Path(snapshot), target, Path(folder))))
