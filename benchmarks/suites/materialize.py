"""The wall time of `dagster asset materialize` for a small catalog."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import Server, run_python, server
from benchmarks.source import API_KEY, Generation

_PRODUCTS = 1_000


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the wall time with that of an asset that does nothing."""
    for generation in generations:
        with (
            server(generation, {"grand-arcade": _PRODUCTS}) as local,
            tempfile.TemporaryDirectory() as folder,
        ):
            contenders = {
                asset: partial(_seconds, asset, Path(folder, asset), local)
                for asset in ("catalog", "nothing")
            }
            for materialize in contenders.values():  # warms byte code, file cache and database
                materialize()
            results = run_rounds(contenders, rounds)
        yield results.row(
            "materialize",
            generation,
            "1,000 products ÷ an asset that does nothing",
            ("catalog", "nothing"),
            float,
            "s",
            1.25,
        )


def _seconds(asset: str, home: Path, local: Server) -> float:
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {
        "DAGSTER_HOME": str(home),
        "OCTOGEN_PLATFORM_API_KEY": API_KEY,
        "OCTOGEN_BASE_URL": local.base_url,
        "SNAPSHOTS": str(home / "snapshots"),
    }
    command = ["-m", "dagster", "asset", "materialize", "--select", asset]
    started_at = time.perf_counter()
    run_python([*command, "-f", f"benchmarks/locations/{asset}.py"], environment)
    seconds = time.perf_counter() - started_at
    if asset == "catalog":
        _check(home / "snapshots" / "catalog.parquet")
    return seconds


def _check(snapshot: Path) -> None:
    count = "import sys, polars; print(polars.read_parquet(sys.argv[1])['uuid'].n_unique())"
    products = int(run_python(["-c", count, str(snapshot)]))
    if products != _PRODUCTS:
        raise RuntimeError(f"{products} products were published of {_PRODUCTS}")
    snapshot.unlink()
