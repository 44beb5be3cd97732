"""100,000 plain products to published Parquet, against other tools."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_reads
from benchmarks.processes import server
from benchmarks.source import Generation

_COMPARISONS = (
    ("loop", "an httpx loop into `pl.DataFrame`", None),
    ("dlt_rest_api", "dlt `rest_api`", 0.2),
    ("published_sdk", "the SDK's loop", 0.2),
    ("bare_httpx", "an httpx client that discards pages", 2.5),
)


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the wall time with that of each contender."""
    for generation in generations:
        # The published SDK supports only the current generation.
        skipped = "published_sdk" if generation == "seed" else ""
        others = [entry for entry in _COMPARISONS if entry[0] != skipped]
        with server(generation, {"grand-arcade": 100_000}) as local:
            contenders = {
                name: partial(local.measure, name)
                for name in ("snapshot", *(entry[0] for entry in others))
            }
            reads = run_reads(contenders, rounds)
        for name, other, target in others:
            what = f"snapshot ÷ {other}"
            yield reads.compare("plain", generation, what, ("snapshot", name), "seconds", target)
