"""A tick of the catalog sensor that finds nothing new, or all new, against the bare listing."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import Server, run_python, server
from benchmarks.source import Generation

_MANY, _ALL, _HALF = 100_000, 10_000, 5_000


def run(generations: Sequence[Generation], rounds: int, _before: Path | None) -> Iterator[Row]:
    """Compare the time of a tick with that of the listing, and of half as many catalogs."""
    if "seed" not in generations:
        return  # the current generation has no list of catalogs
    # Each server also has a catalog for the warm-up.
    with (
        server("seed", {}, listed=_ALL - 1) as all_catalogs,
        server("seed", {}, listed=_HALF - 1) as half,
        server("seed", {}, listed=_MANY - 1) as many,
    ):
        contenders = {
            "tick": partial(_seconds, "tick", all_catalogs, _ALL),
            "list": partial(_seconds, "listing", all_catalogs, _ALL),
            "half": partial(_seconds, "tick", half, _HALF),
            "due": partial(_seconds, "due", all_catalogs, _ALL),
            "many due": partial(_seconds, "due", many, _MANY),
        }
        results = run_rounds(contenders, rounds)
        cursors = {
            "100,000 catalogs": _kilobytes("due", many, _MANY),
            "10,000 catalogs and days": _kilobytes("days", all_catalogs, _ALL),
        }
    for what, pair, target in (
        ("over 10,000 unchanged catalogs ÷ httpx that throws the list away", ("tick", "list"), 3),
        ("over 5,000 unchanged catalogs ÷ over 10,000", ("half", "tick"), None),
        ("over 10,000 due catalogs ÷ httpx that throws the list away", ("due", "list"), None),
        ("over 100,000 due catalogs ÷ over 10,000", ("many due", "due"), 12),
    ):
        yield results.row(
            "sensor",
            "seed",
            f"sensor tick {what}",
            pair,
            lambda seconds: seconds * 1_000,
            "ms",
            target,
        )
    for contender, catalogs, most in (("due", "10,000", 0.2), ("many due", "100,000", 1.5)):
        seconds = results.by_contender[contender]
        what = f"sensor tick over {catalogs} due catalogs, worst round"
        yield Row("sensor", "seed", what, seconds, max(seconds), most, " s")
    for partitions, size in cursors.items():
        what = f"cursor of the sensor with {partitions}"
        yield Row("sensor", "seed", what, [size], size, None, " kB")


def _kilobytes(what: str, local: Server, expected: int) -> float:
    return float(_measure(what, local, expected)["cursor_bytes"]) / 1_000


def _seconds(what: str, local: Server, expected: int) -> float:
    return float(_measure(what, local, expected)["seconds"])


def _measure(what: str, local: Server, expected: int) -> dict[str, float]:
    measured: dict[str, float] = json.loads(
        run_python(["-m", "benchmarks.ticks", what, local.base_url])
    )
    if measured["catalogs"] != expected:
        raise RuntimeError(f"{what} saw {measured['catalogs']} catalogs of {expected}")
    return measured
