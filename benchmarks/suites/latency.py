"""The snapshot against the floor if a page takes 5 ms, as from a service nearby."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_reads
from benchmarks.processes import server
from benchmarks.source import Generation

_SECONDS_PER_PAGE = 0.005
_MAX_ROUNDS = 3


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the time with that of bare httpx."""
    for generation in generations:
        with server(generation, {"grand-arcade": 100_000}, _SECONDS_PER_PAGE) as local:
            contenders = {name: partial(local.measure, name) for name in ("snapshot", "bare_httpx")}
            reads = run_reads(contenders, min(rounds, _MAX_ROUNDS))
        yield reads.compare(
            "latency",
            generation,
            "snapshot ÷ an httpx client that discards pages, 5 ms a page",
            ("snapshot", "bare_httpx"),
            "seconds",
            1.25,
        )
