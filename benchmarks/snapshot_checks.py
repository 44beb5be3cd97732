"""The checks of a snapshot, in runs of Dagster alone in their process.

`python -m benchmarks.snapshot_checks checks FOLDER` runs them over `FOLDER/current.parquet`, after
`FOLDER/previous.parquet` as a warm-up, and prints the measurement. With `read` in place of `checks`
both files are read whole instead.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    build_products_asset,
    build_snapshot_checks,
)

_CHECKS = 4


def measure(answer: Callable[[str], int]) -> dict[str, float]:
    """Return the time, the peak memory and the number of rows."""
    answer("previous")
    cpu, started_at = time.process_time(), time.perf_counter()
    rows = answer("current")
    seconds, cpu = time.perf_counter() - started_at, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak * unit / 1e6, "rows": rows}


def run_checks(folder: Path, name: str) -> int:
    """Run the checks of a snapshot that is there, and return the number of its rows.

    Raises:
        RuntimeError: Dagster evaluated more or fewer checks.
    """
    asset = build_products_asset(name)
    checks = build_snapshot_checks(asset)
    done = dg.materialize(
        [asset, *checks],
        selection=dg.AssetSelection.checks(*checks),
        resources={
            "octogen": OctogenResource(api_key="not-used"),
            "io_manager": ParquetSnapshotIOManager(base_dir=str(folder)),
        },
    )
    evaluations = {each.check_name: each for each in done.get_asset_check_evaluations()}
    if len(evaluations) != _CHECKS:
        raise RuntimeError(f"there were {len(evaluations)} checks and not {_CHECKS}")
    rows: int = evaluations["nulls"].metadata["octogen/rows"].value  # type: ignore[assignment]
    return rows


def read(folder: Path, name: str) -> int:
    """Read a snapshot whole, and return its number of rows."""
    return pl.read_parquet(folder / f"{name}.parquet").height


if __name__ == "__main__":
    what, folder = sys.argv[1:]
    chosen = {"checks": run_checks, "read": read}[what]
    print(json.dumps(measure(lambda name: chosen(Path(folder), name))))
