"""dlt's merge strategy `scd2` into DuckDB beside the history, on the same snapshots.

`python -m benchmarks.scd2 make|update|sizes SNAPSHOT FOLDER DAYS` prints what it measured.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import dlt
import duckdb
import polars as pl

from benchmarks.history import FEW, at, stored, timed

KEY = ["catalog_key", "uuid"]
TRACKED = ["title", "current_price", "original_price", "currency", "in_stock", "is_active"]
_COLUMNS = [*KEY, "product_url", *TRACKED]


def put_in(folder: Path, snapshot: pl.LazyFrame, fetched_at: datetime) -> None:
    """Load a snapshot with the settings that dlt's documentation recommends for each trap.

    The boundary is the time of the snapshot, and a catalog that is absent retires no rows. dlt does
    not hash the rows of Arrow tables: Polars does it faster than dlt's helper, which needs pandas.
    """
    row_hash = pl.struct(*KEY, *TRACKED).hash().reinterpret(signed=True)
    table = snapshot.select(*_COLUMNS, row_hash=row_hash).collect().to_arrow()
    products = dlt.resource(
        [table],
        name="products",
        merge_key="catalog_key",
        write_disposition={
            "disposition": "merge",
            "strategy": "scd2",
            "boundary_timestamp": fetched_at,
            "row_version_column_name": "row_hash",
        },
    )
    pipeline = dlt.pipeline(
        "history",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.duckdb(str(_database(folder))),
        dataset_name="dataset",
    )
    pipeline.run(products, loader_file_format="parquet")


def read(folder: Path) -> pl.DataFrame:
    """Read all rows, with the columns of a history."""
    columns = ", ".join([*_COLUMNS, "_dlt_valid_from AS valid_from", "_dlt_valid_to AS valid_to"])
    with duckdb.connect(str(_database(folder)), read_only=True) as connection:
        rows: pl.DataFrame = connection.sql(f"SELECT {columns} FROM dataset.products").pl()
    return rows.with_columns(pl.col("valid_from", "valid_to").dt.convert_time_zone("UTC"))


def _copied(folder: Path) -> int:
    """Return the size of the database in bytes, without the products that dlt staged.

    It is copied into a new file, as DuckDB's documentation recommends to reclaim space.
    """
    copy = folder / "copy.duckdb"
    with duckdb.connect(str(_database(folder))) as connection:
        connection.sql("DROP SCHEMA IF EXISTS dataset_staging CASCADE")
        connection.sql(f"ATTACH '{copy}' AS copy")
        connection.sql("COPY FROM DATABASE history TO copy")
    return copy.stat().st_size


def _database(folder: Path) -> Path:
    return folder / "history.duckdb"


def _put_in_days(products: Path, folder: Path, days: Iterable[int]) -> None:
    history = folder / "history"
    history.mkdir(parents=True)
    for day in days:
        snapshot = stored(products, folder, day)
        put_in(history, pl.scan_parquet(snapshot), at(day))
        snapshot.unlink()


def _few(products: Path, folder: Path, number: int) -> Path:
    folder.mkdir(exist_ok=True)
    few = folder / "few.parquet"
    pl.scan_parquet(products).head(number).sink_parquet(few)
    return few


def update(products: Path, folder: Path, days: int) -> dict[str, float]:
    """Put the next day into a copy of the history that was made."""
    copy, warm_up = folder / "copy", folder / "warm-up"
    for path in (copy, warm_up):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(folder / "history", copy)
    _put_in_days(_few(products, warm_up, FEW // 100), warm_up, range(2))
    snapshot = pl.scan_parquet(stored(products, folder, days))
    measured = timed(lambda: put_in(copy, snapshot, at(days)))
    columns = [*KEY, *TRACKED]
    current = read(copy).filter(pl.col("valid_to").is_null()).select(columns).sort(KEY)
    if not current.equals(snapshot.select(columns).sort(KEY).collect()):
        raise RuntimeError("The current rows of dlt's table are not those of the snapshot.")
    return measured


def sizes(products: Path, folder: Path, days: int) -> dict[str, float]:
    """Return the size of the database after days ÷ that of one snapshot."""
    few = _few(products, folder, FEW)
    _put_in_days(few, folder, range(days))
    snapshot = stored(few, folder, days - 1).stat().st_size
    history = folder / "history"
    database = _database(history).stat().st_size
    return {"database": database / snapshot, "copy": _copied(history) / snapshot}


if __name__ == "__main__":
    what, products, folder, days = sys.argv[1:]
    arguments = (Path(products), Path(folder), int(days))
    if what == "make":
        _put_in_days(arguments[0], arguments[1], range(arguments[2]))
        print("null")
    else:
        print(json.dumps(sizes(*arguments) if what == "sizes" else update(*arguments)))
