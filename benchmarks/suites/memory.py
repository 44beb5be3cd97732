"""The peak memory of a snapshot, and its growth with the catalog."""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import server
from benchmarks.source import Generation

_SMALL, _LARGE = "small", "large"


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the peaks at 1,000,000 and 100,000 products, and report the larger one."""
    for generation in generations:
        with server(generation, {_SMALL: 100_000, _LARGE: 1_000_000}) as local:
            contenders = {key: partial(local.measure, "snapshot", [key]) for key in local.catalogs}
            results = run_rounds(contenders, rounds)
        yield results.row(
            "memory",
            generation,
            "peak memory at 1,000,000 products ÷ at 100,000",
            (_LARGE, _SMALL),
            attrgetter("peak_mb"),
            "MB",
            1.25,
        )
        peaks = [one.peak_mb for one in results.by_contender[_LARGE]]
        yield Row(
            "memory",
            generation,
            "peak memory at 1,000,000 products, worst round",
            peaks,
            max(peaks),
            350,
            unit=" MB",
        )
