"""The checks of a snapshot of 1,000,000 products, in a run of Dagster."""

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

from benchmarks.measure import Row, run_rounds, say
from benchmarks.processes import run_python
from benchmarks.snapshots import make_snapshots
from benchmarks.source import Generation

_ROWS = 1_000_000
_MAX_ROUNDS = 3


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the time of all checks with that of reading the snapshot whole."""
    for generation in generations:
        with tempfile.TemporaryDirectory() as name:
            say("  the snapshots")
            make_snapshots(generation, Path(name))
            contenders = {what: partial(_measure, what, Path(name)) for what in ("checks", "read")}
            results = run_rounds(contenders, min(rounds, _MAX_ROUNDS))
        what = "all checks"
        yield results.row(
            "checks",
            generation,
            f"{what} ÷ `pl.read_parquet` (time)",
            ("checks", "read"),
            itemgetter("seconds"),
            "s",
        )
        for figure, unit in (("cpu_seconds", " CPU s"), ("peak_mb", " MB")):
            values = [each[figure] for each in results.by_contender["checks"]]
            yield Row("checks", generation, what, values, statistics.median(values), unit=unit)


def _measure(what: str, folder: Path) -> dict[str, float]:
    """Return the measurement of one process.

    Raises:
        RuntimeError: It did not find all rows.
    """
    command = ["-m", "benchmarks.snapshot_checks", what, str(folder)]
    measured: dict[str, float] = json.loads(run_python(command).splitlines()[-1])
    if measured["rows"] != _ROWS:
        raise RuntimeError(f"{what} found {measured['rows']} rows and not {_ROWS}")
    return measured
