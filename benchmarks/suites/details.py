"""Details of products from a service that takes 20 ms for a lookup, against the ideal."""

import json
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import Server, run_python, server
from benchmarks.source import Generation, Source

_CATALOG, _PRODUCTS = "grand-arcade", 3_200
_CONCURRENCY = 32
_SECONDS_PER_LOOKUP = 0.02
_IDEAL = _PRODUCTS / _CONCURRENCY * _SECONDS_PER_LOOKUP
_MAX_ROUNDS = 3


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the time with that of lookups of which 32 are always under way."""
    for generation in generations:
        with server(generation, {_CATALOG: _PRODUCTS}, _SECONDS_PER_LOOKUP, lookups=True) as local:
            seconds = run_rounds({"ours": partial(_seconds, local)}, min(rounds, _MAX_ROUNDS))
        ratios = [each / _IDEAL for each in seconds.by_contender["ours"]]
        yield Row(
            "details",
            generation,
            "3,200 lookups, 32 concurrent ÷ ideal",
            ratios,
            statistics.median(ratios),
            1.5,
        )


def _seconds(local: Server) -> float:
    source = Source(local.base_url, local.generation, [_CATALOG], _CONCURRENCY)
    output = run_python(["-m", "benchmarks.lookups", source.to_json()])
    measured = json.loads(output.splitlines()[-1])
    if measured["found"] != _PRODUCTS:
        raise RuntimeError(f"{measured['found']} products were found of {_PRODUCTS}")
    seconds: float = measured["seconds"]
    return seconds
