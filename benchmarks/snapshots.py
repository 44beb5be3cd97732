"""Two snapshots of 1,000,000 products, as a read of the service stores them."""

from pathlib import Path

from benchmarks.processes import run_python, server
from benchmarks.source import Generation, Source

_SMALL = 100_000
_PROGRAM = """
import sys
from pathlib import Path
from benchmarks.contenders import snapshot_unsaved
from benchmarks.source import Source
snapshot_unsaved.read(Source.from_json(sys.argv[1]), Path(sys.argv[2]))
"""


def make_snapshots(generation: Generation, folder: Path) -> None:
    """Write `previous.parquet` and `current.parquet`: ten times what was read, with differences."""
    with server(generation, {"grand-arcade": _SMALL}) as local:
        source = Source(local.base_url, generation, ["grand-arcade"]).to_json()
        run_python(["-c", _PROGRAM, source, str(folder / "read")])
    snapshot = folder / "read" / "products.parquet"
    run_python(["-m", "benchmarks.comparison", "make", str(snapshot), str(folder)])
