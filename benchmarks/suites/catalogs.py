"""Several catalogs at the same time: their time at 40 ms for a page, and the memory of many."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_reads
from benchmarks.processes import Measurement, Server, server
from benchmarks.source import Generation

_EIGHT = {f"catalog-{number}": 2_500 for number in range(8)}
_HUNDRED = {f"catalog-{number:03}": 2_500 for number in range(100)}
_SECONDS_PER_PAGE = 0.04
_MAX_ROUNDS = 3


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare eight catalogs at once with one after the other, and a hundred with eight."""
    rounds = min(rounds, _MAX_ROUNDS)
    for generation in generations:
        with server(generation, _EIGHT, _SECONDS_PER_PAGE) as local:
            contenders = {
                "at once": partial(local.measure, "snapshot", concurrency=8),
                "in turn": partial(local.measure, "snapshot", concurrency=1),
            }
            reads = run_reads(contenders, rounds)
        yield reads.compare(
            "catalogs",
            generation,
            "time of 8 concurrent catalogs ÷ one after another",
            ("at once", "in turn"),
            "seconds",
            0.16,
        )
        refused: list[float] = []
        with server(generation, _HUNDRED) as local:
            hundred = {
                "100": partial(_counted, local, refused),
                "8": partial(local.measure, "snapshot", concurrency=8),
            }
            reads = run_reads(hundred, rounds)
        yield reads.compare(
            "catalogs",
            generation,
            "memory of 100 concurrent catalogs ÷ of 8",
            ("100", "8"),
            "peak_mb",
            1.3,
        )
        what = "rejected requests, 100 concurrent catalogs"
        yield Row("catalogs", generation, what, refused, max(refused), 1, unit=" requests")


def _counted(local: Server, refused: list[float]) -> Measurement:
    """Measure 100 at once, and note how many of its requests were refused."""
    begun = local.counts()["refused"]
    measurement = local.measure("snapshot", concurrency=100)
    refused.append(local.counts()["refused"] - begun)
    return measurement
