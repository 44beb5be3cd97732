"""The cost of a page before it is decoded, which is why bulk reads use BlockingTransport."""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import server
from benchmarks.source import Generation

_CONTENDERS = ("walk_blocking", "walk_async")


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the times of the same search over two HTTP clients."""
    for generation in generations:
        with server(generation, {"grand-arcade": 100_000}) as local:
            results = run_rounds(
                {name: partial(local.measure, name) for name in _CONTENDERS}, rounds
            )
        yield results.row(
            "transport",
            generation,
            "1,000 pages by OctogenClient over BlockingTransport ÷ over httpx.AsyncClient",
            _CONTENDERS,
            attrgetter("seconds"),
            "s",
        )
