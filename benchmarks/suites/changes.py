"""The changes between two snapshots of 1,000,000 products."""

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, run_rounds, say, worst
from benchmarks.processes import run_python
from benchmarks.snapshots import make_snapshots
from benchmarks.source import Generation

_EXPECTED = {"appeared": 10_000, "disappeared": 10_000, "changed": 30_000}
_MAX_ROUNDS = 3


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Measure the time and the memory of the comparison."""
    for generation in generations:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            say("  the snapshots")
            make_snapshots(generation, folder)
            results = run_rounds({"now": partial(_measure, folder)}, min(rounds, _MAX_ROUNDS))
        what = "changes query"
        for figure, unit in (("seconds", " s"), ("cpu_seconds", " CPU s")):
            values = [each[figure] for each in results.by_contender["now"]]
            median = statistics.median(values)
            yield Row("changes", generation, what, values, median, unit=unit)
        peaks = [each["peak_mb"] for each in results.by_contender["now"]]
        yield worst("changes", generation, f"{what}, memory", peaks, 450)


def _measure(folder: Path) -> dict[str, float]:
    """Return the measurement of one process.

    Raises:
        RuntimeError: It did not find the known differences.
    """
    output = run_python(["-m", "benchmarks.comparison", "measure", str(folder)])
    measured: dict[str, float] = json.loads(output)
    found = {change: measured.get(change, 0) for change in _EXPECTED}
    if found != _EXPECTED:
        raise RuntimeError(f"the comparison found {found}, not {_EXPECTED}")
    return measured
