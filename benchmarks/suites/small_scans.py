"""A small catalog through a scan, with short and long lists of catalogs beside it."""

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import Server, run_python, server
from benchmarks.source import Generation, Source

PRODUCTS = 1_000
LISTED = (10, 100_000)
_MAX_MILLISECONDS = 30
_CATALOG = "small"


def run(generations: Sequence[Generation], rounds: int, _before: Path | None) -> Iterator[Row]:
    """Measure a scan beside each list, and compare it with a script that knows of no list."""
    for generation in generations:
        # The current generation has no list of catalogs.
        lists = LISTED if generation == "seed" else LISTED[:1]
        with ExitStack() as servers:
            contenders = {
                f"scan, {listed}": partial(
                    _milliseconds,
                    "scan",
                    # The catalog itself and that of the warm-up are listed too.
                    servers.enter_context(
                        server(generation, {_CATALOG: PRODUCTS}, listed=listed - 2)
                    ),
                )
                for listed in lists
            }
            plain = servers.enter_context(server(generation, {_CATALOG: PRODUCTS}))
            contenders["script"] = partial(_milliseconds, "script", plain)
            results = run_rounds(contenders, rounds)
        for listed in lists:
            beside = f", {listed:,} catalogs in the list" if generation == "seed" else ""
            what = f"{PRODUCTS:,} products through a scan{beside}"
            values = results.by_contender[f"scan, {listed}"]
            yield results.row(
                "small_scans",
                generation,
                f"{what} ÷ a script of 20 lines",
                (f"scan, {listed}", "script"),
                float,
                "ms",
            )
            yield Row(
                "small_scans",
                generation,
                what,
                values,
                statistics.median(values),
                _MAX_MILLISECONDS,
                " ms",
            )


def _milliseconds(what: str, local: Server) -> float:
    source = Source(local.base_url, local.generation, [_CATALOG])
    output = run_python(["-m", "benchmarks.small_scans", what, source.to_json()])
    measured = json.loads(output.splitlines()[-1])
    if measured["products"] != PRODUCTS:
        raise RuntimeError(f"{what} read {measured['products']} products of {PRODUCTS}")
    seconds: float = measured["seconds"]
    return seconds * 1_000
