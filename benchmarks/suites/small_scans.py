"""A small catalog through a scan, beside a script of 20 lines."""

import json
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import Server, run_python, server
from benchmarks.source import Generation, Source

_CATALOG, _PRODUCTS = "small", 1_000
_MAX_MILLISECONDS = 30


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Measure the scan, and compare it with the script."""
    what = f"scan of {_PRODUCTS:,} products"
    for generation in generations:
        with server(generation, {_CATALOG: _PRODUCTS}) as local:
            contenders = {name: partial(_milliseconds, name, local) for name in ("scan", "script")}
            results = run_rounds(contenders, rounds)
        yield results.row(
            "small_scans",
            generation,
            f"{what} ÷ a 20-line script",
            ("scan", "script"),
            float,
            "ms",
        )
        values = results.by_contender["scan"]
        median = statistics.median(values)
        yield Row("small_scans", generation, what, values, median, _MAX_MILLISECONDS, " ms")


def _milliseconds(what: str, local: Server) -> float:
    source = Source(local.base_url, local.generation, [_CATALOG])
    output = run_python(["-m", "benchmarks.small_scans", what, source.to_json()])
    measured = json.loads(output.splitlines()[-1])
    if measured["products"] != _PRODUCTS:
        raise RuntimeError(f"{what} read {measured['products']} products of {_PRODUCTS}")
    seconds: float = measured["seconds"]
    return seconds * 1_000
