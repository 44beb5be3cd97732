"""The peak memory of a snapshot, and its growth with the catalog."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_reads, say, worst
from benchmarks.processes import server
from benchmarks.source import Generation

_SMALL, _LARGE, _HUGE = "small", "large", "huge"
_PRODUCTS = {_SMALL: 100_000, _LARGE: 1_000_000, _HUGE: 5_000_000}
_MAX_ROUNDS = 5


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the peaks at 1,000,000 and 100,000 products, and report the larger ones."""
    for generation in generations:
        with server(generation, _PRODUCTS) as local:
            contenders = {
                _SMALL: partial(local.measure, "snapshot", [_SMALL]),
                _LARGE: partial(local.measure, "snapshot", [_LARGE]),
                "sink": partial(local.measure, "sink_parquet", [_LARGE]),
            }
            reads = run_reads(contenders, min(rounds, _MAX_ROUNDS))
            say(f"  once: {_HUGE}")
            huge = local.measure("snapshot", [_HUGE])
        subject = "snapshot of 1,000,000 products"
        yield reads.compare(
            "memory", generation, f"{subject} ÷ of 100,000", (_LARGE, _SMALL), "peak_mb", 1.25
        )
        for contender, what, target in (
            (_LARGE, subject, 350),
            ("sink", "`sink_parquet` of 1,000,000 products", 550),
        ):
            peaks = [one.peak_mb for one in reads.by_contender[contender]]
            yield worst("memory", generation, what, peaks, target)
        what = "snapshot of 5,000,000 products"
        yield worst("memory", generation, what, [huge.peak_mb], 550)
