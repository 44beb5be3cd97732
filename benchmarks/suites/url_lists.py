"""Addresses that an asset brings into a URL list, beside the bare requests."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import run_python, server
from benchmarks.source import Generation

_ADDRESSES = 100_000
_FIGURES = {"seconds": ("time", "s"), "cpu_seconds": ("CPU", "s"), "peak_mb": ("memory", "MB")}


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the time and the memory; only the current generation has URL lists."""
    if "current" not in generations:
        return
    with server("current", {}) as local:
        contenders = {what: partial(_measure, what, local.base_url) for what in ("asset", "bare")}
        measured = run_rounds(contenders, rounds)
    what = f"{_ADDRESSES:,} URLs by an asset ÷ the same 100 requests by httpx"
    for figure, (name, unit) in _FIGURES.items():
        yield measured.row(
            "url_lists",
            "current",
            f"{what} ({name})",
            ("asset", "bare"),
            itemgetter(figure),
            unit,
        )


def _measure(what: str, base_url: str) -> dict[str, float]:
    output = run_python(["-m", "benchmarks.url_lists", what, base_url, str(_ADDRESSES)])
    measured: dict[str, float] = json.loads(output.splitlines()[-1])
    return measured
