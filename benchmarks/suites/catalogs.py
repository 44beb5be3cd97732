"""Several catalogs at the same time, from a service that takes 40 ms for a page."""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import server
from benchmarks.source import Generation

_CATALOGS = {f"catalog-{number}": 2_500 for number in range(8)}
_SECONDS_PER_PAGE = 0.04


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the time of eight catalogs at once with that of one after the other."""
    for generation in generations:
        with server(generation, _CATALOGS, _SECONDS_PER_PAGE) as local:
            contenders = {
                "at once": partial(local.measure, "snapshot", concurrency=8),
                "in turn": partial(local.measure, "snapshot", concurrency=1),
            }
            results = run_rounds(contenders, rounds)
        yield results.row(
            "catalogs",
            generation,
            "8 catalogs of 25 pages at 40 ms a page, at once ÷ one after the other",
            ("at once", "in turn"),
            attrgetter("seconds"),
            "s",
            0.16,
        )
