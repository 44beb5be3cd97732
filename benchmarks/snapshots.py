"""Snapshots of 100,000 and 1,000,000 products, as a read of the service stores them."""

from pathlib import Path

from benchmarks.processes import run_python, server
from benchmarks.source import Generation, Source

_SMALL = 100_000


def read_snapshot(generation: Generation, folder: Path) -> Path:
    """Read 100,000 products to a snapshot."""
    with server(generation, {"grand-arcade": _SMALL}) as local:
        source = Source(local.base_url, generation, ["grand-arcade"]).to_json()
        run_python(["-m", "benchmarks.contenders.snapshot", source, str(folder / "read")])
    return folder / "read" / "products.parquet"


def make_snapshots(generation: Generation, folder: Path) -> None:
    """Write `previous.parquet` and `current.parquet`: ten times what was read, with differences."""
    snapshot = read_snapshot(generation, folder)
    run_python(["-m", "benchmarks.comparison", "make", str(snapshot), str(folder)])
