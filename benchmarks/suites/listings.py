"""Ticks of the listing sensor over 10,000 listings, against the bare paged listing."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.hub import hub
from benchmarks.measure import Rounds, Row, run_rounds
from benchmarks.processes import run_python
from benchmarks.source import Generation

_ALL, _HALF = 10_000, 5_000
_TICKS = _ALL // 50
_MAX_TICK_SECONDS = 40  # Dagster stops a tick after 60
_LISTINGS = "10,000 listings"


def run(generations: Sequence[Generation], rounds: int, _before: Path | None) -> Iterator[Row]:
    """Count the ticks, and compare their times with that of the listing."""
    del generations  # Analytics Hub has one
    with hub(_ALL) as every, hub(_HALF) as half:
        contenders = {
            "all": partial(_measured, every, _ALL),
            "half": partial(_measured, half, _HALF),
        }
        measured = run_rounds(contenders, rounds).by_contender
    seconds = Rounds(
        {name: [each[name] for each in measured["all"]] for name in measured["all"][0]}
        | {"half": [each["idle"] for each in measured["half"]]}
    )
    ticks = seconds.by_contender["ticks"]
    yield Row("listings", "", f"ticks for {_LISTINGS}", ticks, max(ticks), _TICKS, " ticks")
    longest = [
        max(each[stage] for stage in ("first", "middle", "last", "idle"))
        for each in measured["all"]
    ]
    what = f"longest tick over {_LISTINGS}"
    yield Row("listings", "", what, longest, max(longest), _MAX_TICK_SECONDS, " s")
    floor = "÷ Google's client that throws the list away"
    both = "÷ Google's client that throws both lists away"
    for what, pair, target in (
        (f"first tick over {_LISTINGS} {floor}", ("first", "listing"), 2),
        (f"middle tick over {_LISTINGS} {both}", ("middle", "both"), 2),
        (f"last tick over {_LISTINGS} {both}", ("last", "both"), 2),
        (f"idle tick over {_LISTINGS} {both}", ("idle", "both"), 2),
        ("idle tick over 5,000 listings ÷ over 10,000", ("half", "idle"), None),
    ):
        yield seconds.row("listings", "", what, pair, lambda seconds: seconds * 1_000, "ms", target)


def _measured(where: tuple[str, str], expected: int) -> dict[str, float]:
    measured: dict[str, float] = json.loads(run_python(["-m", "benchmarks.listing_ticks", *where]))
    if measured["listings"] != expected:
        raise RuntimeError(f"saw {measured['listings']} listings of {expected}")
    return measured
