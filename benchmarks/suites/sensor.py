"""A tick of the catalog sensor that finds nothing new, or all new, and one of automation."""

import json
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import Server, run_python, server
from benchmarks.source import Generation

_MANY, _FEW = 100_000, 10_000


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Measure the time of ticks, and the size of what a tick leaves to the next one."""
    if "seed" not in generations:
        return  # the current generation has no list of catalogs
    # Each server also has a catalog for the warm-up.
    with server("seed", {}, listed=_FEW - 1) as few, server("seed", {}, listed=_MANY - 1) as many:
        contenders = {
            "10,000 unchanged catalogs": partial(_figure, "seconds", "tick", few, _FEW),
            "10,000 due catalogs": partial(_figure, "seconds", "due", few, _FEW),
            "100,000 due catalogs": partial(_figure, "seconds", "due", many, _MANY),
        }
        results = run_rounds(contenders, rounds)
        cursors = {
            "100,000 catalogs": _figure("cursor_bytes", "due", many, _MANY),
            "10,000 catalogs and days": _figure("cursor_bytes", "days", few, _FEW),
        }
    for (catalogs, seconds), most in zip(
        results.by_contender.items(), (0.2, 0.2, 1.5), strict=True
    ):
        what = f"catalog sensor, {catalogs}"
        yield Row("sensor", "seed", what, seconds, max(seconds), most, " s")
    conditions = {each: partial(_tick, each) for each in ("follow", "eager")}
    yield run_rounds(conditions, min(rounds, 3)).row(
        "sensor",
        "",
        "automation tick, 10,000 unchanged catalogs, `follow_upstream()` ÷ `eager()`",
        ("follow", "eager"),
        float,
        "s",
    )
    for partitions, size in cursors.items():
        what = f"sensor cursor, {partitions}"
        yield Row("sensor", "seed", what, [size / 1_000], size / 1_000, None, " kB")


def _figure(figure: str, what: str, local: Server, expected: int) -> float:
    output = run_python(["-m", "benchmarks.ticks", what, local.base_url])
    measured: dict[str, float] = json.loads(output)
    if measured["catalogs"] != expected:
        raise RuntimeError(f"{what} saw {measured['catalogs']} catalogs of {expected}")
    return measured[figure]


def _tick(condition: str) -> float:
    return float(run_python(["-m", "benchmarks.automation", condition]))
