"""The changes between two snapshots in a history, alone in its process.

`python -m benchmarks.comparison make SNAPSHOT FOLDER` makes a history of two snapshots of ten times
as many products, with known differences. `python -m benchmarks.comparison measure FOLDER` reads the
changes from it after a warm-up, and prints the measurement and the numbers of changes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from octogen_dagster.history.observed import Observation

_LAPS = 10
_OBSERVED = {datetime(2026, 11, day, tzinfo=UTC): Observation(None) for day in (1, 2)}


def make(snapshot: Path, folder: Path) -> None:
    """Write `previous.parquet`, `current.parquet` in another order, and the history of both."""
    previous = [_lap(snapshot, lap) for lap in range(_LAPS)]
    current = pl.concat(map(_changed, reversed(previous)))
    written = [folder / "previous.parquet", folder / "current.parquet"]
    for frame, path in zip((pl.concat(previous), current), written, strict=True):
        frame.sink_parquet(path, row_group_size=20_000)
    few = pl.scan_parquet(snapshot).head(100)
    _write_history([*map(pl.scan_parquet, written)], folder / "history.parquet")
    _write_history([few, few], folder / "warm-up.parquet")


def _write_history(snapshots: Sequence[pl.LazyFrame], path: Path) -> None:
    from octogen_dagster.history.table import HISTORY_SCHEMA, put_in
    from octogen_dagster.history.tracking import PRODUCTS

    history = pl.DataFrame(schema=HISTORY_SCHEMA)
    for number, (at, snapshot) in enumerate(zip(_OBSERVED, snapshots, strict=True), 1):
        observed = dict([*_OBSERVED.items()][:number])
        rows = put_in(history.lazy(), PRODUCTS.rows(snapshot), at, observed)
        history = pl.concat([history.clear(), *rows])
    history.write_parquet(path, row_group_size=20_000)


def _lap(snapshot: Path, lap: int) -> pl.LazyFrame:
    uuid = pl.concat_str(pl.lit(f"{lap:08x}"), pl.col("uuid").str.slice(8))
    return pl.scan_parquet(snapshot).with_columns(uuid.alias("uuid"))


def _changed(lap: pl.LazyFrame) -> pl.LazyFrame:
    share = pl.int_range(pl.len()) % 100  # one in a hundred has a new uuid, three have changed
    renamed = pl.when(share == 1).then(pl.concat_str(pl.lit("f"), pl.col("uuid").str.slice(1)))
    return lap.with_columns(
        renamed.otherwise("uuid").alias("uuid"),
        pl.when(share.is_in([2, 3])).then(pl.col("current_price") + 1).otherwise("current_price"),
        pl.when(share == 4).then(pl.col("title") + " II").otherwise("title"),
    )


def measure(folder: Path) -> dict[str, float]:
    """Read the changes."""
    from octogen_dagster.changes.table import product_changes

    def compare(name: str) -> pl.DataFrame:
        history = pl.scan_parquet(folder / f"{name}.parquet")
        return product_changes(history, max(_OBSERVED), _OBSERVED)

    compare("warm-up")
    cpu, started_at = time.process_time(), time.perf_counter()
    changes = compare("history")
    seconds, cpu = time.perf_counter() - started_at, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts: dict[str, int] = dict(changes.group_by("change").len().iter_rows())
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak * unit / 1e6, **counts}


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    if what == "make":
        make(*map(Path, paths))
    else:
        print(json.dumps(measure(*map(Path, paths))))
