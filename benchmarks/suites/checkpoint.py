"""The cost of saved pages for a read that is not interrupted."""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import server
from benchmarks.source import Generation


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the times with and without saved pages."""
    for generation in generations:
        with server(generation, {"grand-arcade": 100_000}) as local:
            contenders = {
                name: partial(local.measure, name) for name in ("snapshot", "snapshot_unsaved")
            }
            results = run_rounds(contenders, rounds)
        yield results.row(
            "checkpoint",
            generation,
            "100,000 products to Parquet with pages saved ÷ without",
            ("snapshot", "snapshot_unsaved"),
            attrgetter("seconds"),
            "s",
            1.1,
        )
