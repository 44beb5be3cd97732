"""The comparison of two snapshots, alone in its process.

`python -m benchmarks.comparison make SNAPSHOT FOLDER` makes two snapshots of ten times as many
products, with known differences. `python -m benchmarks.comparison measure FOLDER` compares them
after a warm-up, and prints the measurement and the numbers of changes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import polars as pl

_LAPS = 10


def make(snapshot: Path, folder: Path) -> None:
    """Write `previous.parquet`, and `current.parquet` in another order."""
    previous = [_lap(snapshot, lap) for lap in range(_LAPS)]
    pl.concat(previous).sink_parquet(folder / "previous.parquet", row_group_size=20_000)
    current = pl.concat(map(_changed, reversed(previous)))
    current.sink_parquet(folder / "current.parquet", row_group_size=20_000)
    pl.scan_parquet(snapshot).head(100).sink_parquet(folder / "warm-up.parquet")


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
    """Compare the snapshots."""
    from octogen_dagster.changes.table import product_changes
    from octogen_dagster.frames.stored import SnapshotPair

    def compare(current: str, previous: str) -> pl.DataFrame:
        pair = SnapshotPair(
            pl.scan_parquet(folder / f"{current}.parquet"),
            pl.scan_parquet(folder / f"{previous}.parquet"),
        )
        return product_changes(pair).lazy().collect()

    compare("warm-up", "warm-up")
    cpu, started_at = time.process_time(), time.perf_counter()
    changes = compare("current", "previous")
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
