"""One catalog in several walks at once, from a service that takes 40 ms for a page."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_reads
from benchmarks.processes import Measurement, Server, server
from benchmarks.source import PAGE_SIZE, Generation

_PRODUCTS = 50_000
_SECONDS_PER_PAGE = 0.04
_WARM_UP_PAGES = 2
_MAX_ROUNDS = 3


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the time and the requests of 8 walks at once with those of one walk."""
    if "current" not in generations:
        return  # the seed generation cannot leave brands out
    pages = {"walks": list[float](), "one_walk": list[float]()}
    with server("current", {"grand-arcade": _PRODUCTS}, _SECONDS_PER_PAGE) as local:
        for name in pages:  # the server makes the pages of a walk when it is first requested
            local.measure(name)
        contenders = {name: partial(_counted, local, name, pages[name]) for name in pages}
        reads = run_reads(contenders, min(rounds, _MAX_ROUNDS))
    if len({each.digest for name in pages for each in reads.by_contender[name]}) != 1:
        raise RuntimeError("several walks read other rows than one walk")
    what = "8 concurrent walks ÷ one walk"
    yield reads.compare(
        "walks", "current", f"{what} (time)", ("walks", "one_walk"), "seconds", 0.15
    )
    ratios = [above / below for above, below in zip(*pages.values(), strict=True)]
    medians = f"{pages['walks'][0]:.0f} ÷ {_PRODUCTS // PAGE_SIZE} pages"
    yield Row("walks", "current", f"{what} (requests)", ratios, max(ratios), 1.05, medians=medians)


def _counted(local: Server, contender: str, pages: list[float]) -> Measurement:
    """Measure a read, and note how many pages it requested."""
    begun = local.pages_served()
    measurement = local.measure(contender)
    pages.append(local.pages_served() - begun - _WARM_UP_PAGES)
    return measurement
