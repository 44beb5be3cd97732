"""The history of a catalog, each measurement alone in its process.

A day is a snapshot in which 1 % of the prices have moved, 0.2 % of the products are gone and as
many are back. `python -m benchmarks.history WHAT SNAPSHOT FOLDER DAYS` prints what it measured.
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import ParquetSnapshotIOManager, scan_history
from octogen_dagster.alerts import (
    Appeared,
    BackInStock,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
)
from octogen_dagster.alerts.update import AlertsUpdate
from octogen_dagster.frames.stored import StoredSnapshot
from octogen_dagster.history.update import HistoryUpdate

ASSET = "products_history"
ALERTS = "products_alerts"
RULES = [
    PriceDropped(percent=1),
    PriceRose(percent=1),
    PriceDropped(name="below_usual", percent=10, against="median"),
    BackInStock(),
    OutOfStock(where=pl.col("brand").struct.field("name").is_not_null()),
    Appeared(),
    Disappeared(),
]
_FIRST = datetime(2026, 1, 1, 6, tzinfo=UTC)
FEW = 20_000
_QUERIES = 5
_MOVED = "moved.parquet"


def at(day: int) -> datetime:
    """Return when the snapshot of a day was read."""
    return _FIRST + timedelta(days=day)


def _snapshot(products: Path, day: int) -> pl.LazyFrame:
    """The snapshot of a day."""
    number = pl.col("uuid").hash(seed=1) // 1_000
    is_there = (number + day) % 500 >= 3
    moved = pl.col("current_price") + ((number // 500 + day) // 100).cast(pl.Float64)
    now = pl.lit(at(day), pl.Datetime("us", "UTC"))
    frame = pl.scan_parquet(products).filter(is_there)
    return frame.with_columns(moved.alias("current_price"), now.alias("fetched_at"))


def stored(products: Path, folder: Path, day: int) -> Path:
    """Store the snapshot of a day."""
    path = folder / f"day-{day}.parquet"
    _store(_snapshot(products, day), path)
    return path


def _store(snapshot: pl.LazyFrame, path: Path) -> None:
    snapshot.sink_parquet(path, compression="zstd", compression_level=1, row_group_size=20_000)


def put_in(folder: Path, snapshots: Mapping[int, pl.LazyFrame]) -> None:
    """Put the snapshots of days into the history, as a run of its asset does."""

    def of_day(day: int) -> StoredSnapshot:
        file_metadata = {"octogen.fetched_at": at(day).isoformat()}
        return StoredSnapshot(lambda: (snapshots[day], file_metadata))

    manager = ParquetSnapshotIOManager(base_dir=str(folder))
    update = HistoryUpdate(map(of_day, snapshots))
    manager.handle_output(dg.build_output_context(asset_key=ASSET), update)


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Return the wall time and the CPU time of work in seconds, and the peak memory in MB."""
    cpu, started_at = time.process_time(), time.perf_counter()
    work()
    seconds, cpu = time.perf_counter() - started_at, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}


def make(products: Path, folder: Path, days: int) -> None:
    """Make a history of days, the snapshot of the next one, and one with all prices moved."""
    for day in range(days):
        snapshot = stored(products, folder, day)
        put_in(folder, {day: pl.scan_parquet(snapshot)})
        snapshot.unlink()
    next_day = pl.scan_parquet(stored(products, folder, days))
    now = pl.lit(at(days + 1), pl.Datetime("us", "UTC")).alias("fetched_at")
    _store(next_day.with_columns(pl.col("current_price") + 1, now), folder / _MOVED)


def sizes(products: Path, folder: Path, days: int) -> Iterator[float]:
    """Yield the size of a history of fewer products ÷ that of one snapshot, for each day."""
    few = folder / "few.parquet"
    pl.scan_parquet(products).head(FEW).sink_parquet(few)
    for day in range(days):
        snapshot = stored(few, folder, day)
        put_in(folder, {day: pl.scan_parquet(snapshot)})
        yield (folder / f"{ASSET}.parquet").stat().st_size / snapshot.stat().st_size
        snapshot.unlink()


def update(products: Path, folder: Path, days: int) -> dict[str, float]:
    """Put the next day into a copy of the history that `make` made."""
    copy, warm_up = folder / "copy", folder / "warm-up"
    for path in (copy, warm_up):
        path.mkdir(exist_ok=True)
    shutil.copy(folder / f"{ASSET}.parquet", copy)
    few = warm_up / "few.parquet"
    pl.scan_parquet(products).head(FEW // 100).sink_parquet(few)
    for day in range(2):
        put_in(warm_up, {day: pl.scan_parquet(stored(few, warm_up, day))})
    snapshot = folder / f"day-{days}.parquet"
    measured = timed(lambda: put_in(copy, {days: pl.scan_parquet(snapshot)}))
    return measured | _queries(copy, days)


def first(_products: Path, folder: Path, days: int) -> dict[str, float]:
    """Begin a history with all products."""
    (folder / "begun").mkdir()
    snapshot = pl.scan_parquet(folder / f"day-{days}.parquet")
    return timed(lambda: put_in(folder / "begun", {days: snapshot}))


def all_changed(_products: Path, folder: Path, days: int) -> dict[str, float]:
    """Put a day on which each price has moved into the history that `first` began."""
    snapshot = pl.scan_parquet(folder / _MOVED)
    return timed(lambda: put_in(folder / "begun", {days + 1: snapshot}))


def tell(folder: Path, history: Path, snapshot: Path) -> None:
    """Bring the alerts in a folder up to date with a history, as a run of their asset does."""
    metadata = pl.read_parquet_metadata(history)
    update = AlertsUpdate(RULES, pl.scan_parquet(history), metadata, pl.scan_parquet(snapshot))
    manager = ParquetSnapshotIOManager(base_dir=str(folder))
    manager.handle_output(dg.build_output_context(asset_key=ALERTS), update)


def alerts_before(products: Path, folder: Path, days: int) -> dict[str, float]:
    """Find the alerts of the history that `make` made, and of one in which the next day is."""
    for name in ("alerts", "next"):
        (folder / name).mkdir(exist_ok=True)
    last = stored(products, folder, days - 1)
    shutil.copy(folder / f"{ASSET}.parquet", folder / "next")
    put_in(folder / "next", {days: pl.scan_parquet(folder / f"day-{days}.parquet")})
    return timed(lambda: tell(folder / "alerts", folder / f"{ASSET}.parquet", last))


def alerts(_products: Path, folder: Path, days: int) -> dict[str, float]:
    """Bring a copy of the alerts of `alerts_before` up to date with the next day."""
    copy = folder / "alerts-copy"
    copy.mkdir(exist_ok=True)
    shutil.copy(folder / "alerts" / f"{ALERTS}.parquet", copy)
    dg.build_output_context(asset_key=ALERTS)  # warms up: Dagster's instance is imported with it
    history = folder / "next" / f"{ASSET}.parquet"
    return timed(lambda: tell(copy, history, folder / f"day-{days}.parquet"))


def _queries(folder: Path, days: int) -> dict[str, float]:
    """The medians of the wall times of all products as of a day, and of one product's past."""
    history = scan_history(str(folder), asset=ASSET)
    uuids = history.select(pl.col("uuid").sample(_QUERIES)).collect().to_series()

    def as_of(day: int) -> object:
        return scan_history(str(folder), asset=ASSET, as_of=at(day)).collect()

    def past(uuid: str) -> object:
        return scan_history(str(folder), asset=ASSET).filter(uuid=uuid).collect()

    def median(query: Callable[[Any], object], of: Iterable[Any]) -> float:
        return statistics.median(timed(partial(query, each))["seconds"] for each in of)

    days_asked = [each * days // _QUERIES for each in range(_QUERIES)]
    return {"as_of": median(as_of, days_asked), "past": median(past, uuids)}


if __name__ == "__main__":
    logging.disable(logging.INFO)
    what, products, folder, days = sys.argv[1:]
    arguments = (Path(products), Path(folder), int(days))
    Path(folder).mkdir(exist_ok=True)
    if what == "make":
        make(*arguments)
        print("null")
    elif what == "sizes":
        print(json.dumps([*sizes(*arguments)]))
    else:
        works = (update, first, all_changed, alerts_before, alerts)
        work = {each.__name__: each for each in works}[what]
        print(json.dumps(work(*arguments)))
