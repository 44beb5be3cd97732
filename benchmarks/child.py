"""One measurement, alone in its process: `python -m benchmarks.child CONTENDER WARM_UP SOURCE`.

The contender first reads the single page of WARM_UP, so that late imports and one-time setup are
not measured, and reads it once more to measure what any read costs, whatever its size. The last
line of the output is the measurement.
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.source import Source


def _measure(contender: str, warm_up: Source, source: Source) -> dict[str, Any]:
    read = importlib.import_module(f"benchmarks.contenders.{contender}").read
    with tempfile.TemporaryDirectory() as folder:
        read(warm_up, Path(folder, "warm_up"))
        _, start_seconds, start_cpu = _timed(lambda: read(warm_up, Path(folder, "start")))
        result, seconds, cpu = _timed(lambda: read(source, Path(folder, "measured")))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows = {"products": result} if isinstance(result, int) else _rows(result)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "start_seconds": start_seconds,
        "start_cpu_seconds": start_cpu,
        "peak_mb": peak * unit / 1e6,
        **rows,
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Do work; return its result, its wall time and the CPU time of this and of child processes."""
    cpu, started_at = _cpu_seconds(), time.perf_counter()
    result = work()
    return result, time.perf_counter() - started_at, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _rows(files: Path) -> dict[str, Any]:
    """Count the distinct products of Parquet files, and digest their values.

    Raises:
        RuntimeError: There is another number of rows than of distinct products.
    """
    import polars as pl

    frame = pl.scan_parquet(files)
    rows, products = frame.select(pl.len(), pl.col("uuid").n_unique().alias("n")).collect().row(0)
    if rows != products:
        raise RuntimeError(f"{rows} rows of {products} products")
    columns = frame.collect_schema().names()
    if "fetched_at" not in columns:
        return {"products": products}
    digest = 0
    # Products of different catalogs differ in their keys and in the first four digits of the uuid.
    frame = frame.with_columns(pl.col("uuid").str.slice(4)).drop("fetched_at", "catalog_key")
    for batch in frame.collect_batches(chunk_size=50_000):
        digest ^= batch.hash_rows(seed=1).to_frame().select(pl.all().bitwise_xor()).item()
    return {"products": products, "digest": digest}


if __name__ == "__main__":
    name, *sources = sys.argv[1:]
    print("\n" + json.dumps(_measure(name, *map(Source.from_json, sources))))
