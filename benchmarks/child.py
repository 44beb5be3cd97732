"""One measurement, alone in its process: `python -m benchmarks.child CONTENDER WARM_UP SOURCE`.

The contender first reads the single page of WARM_UP, so that late imports and one-time setup are
not measured. The last line of the output is the measurement.
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.source import Source


def _measure(contender: str, warm_up: Source, source: Source) -> dict[str, float]:
    read = importlib.import_module(f"benchmarks.contenders.{contender}").read
    with tempfile.TemporaryDirectory() as folder:
        read(warm_up, Path(folder, "warm_up"))
        started_at = time.perf_counter()
        result = read(source, Path(folder, "measured"))
        seconds = time.perf_counter() - started_at
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        products = result if isinstance(result, int) else _products_in(result)
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "peak_mb": peak * unit / 1e6, "products": products}


def _products_in(parquet_files: Path) -> int:
    import polars as pl

    count: int = pl.scan_parquet(parquet_files).select(pl.col("uuid").n_unique()).collect().item()
    return count


if __name__ == "__main__":
    name, *sources = sys.argv[1:]
    print("\n" + json.dumps(_measure(name, *map(Source.from_json, sources))))
