"""Events of own prices and the history of a linked snapshot, beside the history of products."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, run_rounds, say, worst
from benchmarks.processes import run_python
from benchmarks.snapshots import read_snapshot
from benchmarks.source import Generation

_EVENTS = "events, 100,000 SKUs with three pages each"
_ROWS = {
    "events": (f"{_EVENTS} ÷ update of their history", 0.8),
    "linked": (
        "history update of a linked snapshot ÷ of products with the same 300,000 rows",
        1.1,
    ),
}
_DAYS = (100, 200, 400)


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare a day of each with the update of the history of the same products."""
    if "current" not in generations:
        return  # the histories of both generations have the same columns
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("  the histories")
        _child("make", read_snapshot("current", folder), folder / "own")
        works = {what: partial(_measure, what, folder / "own") for what in ("update", *_ROWS)}
        works |= {f"{days}": partial(_last_of, days) for days in _DAYS}
        measured = run_rounds(works, rounds)
    for what, (label, target) in _ROWS.items():
        yield measured.row(
            "own_prices",
            "current",
            label,
            (what, "update"),
            itemgetter("cpu_seconds"),
            "s",
            target,
        )
    for days, twice in pairwise(_DAYS):
        yield measured.row(
            "own_prices",
            "current",
            f"events, 500 SKUs with five pages each, {twice} ÷ {days} days",
            (f"{twice}", f"{days}"),
            itemgetter("cpu_seconds"),
            "s",
            2.2,
        )
    peaks = [each["peak_mb"] for each in measured.by_contender["events"]]
    yield worst("own_prices", "current", f"{_EVENTS}, memory", peaks, 450)


def _measure(what: str, folder: Path) -> Any:
    return json.loads(_child(what, folder).splitlines()[-1])


def _last_of(days: int) -> Any:
    return json.loads(_child("days", days).splitlines()[-1])


def _child(what: str, *paths: Path | int) -> str:
    return run_python(["-m", "benchmarks.own_prices", what, *map(str, paths)])
