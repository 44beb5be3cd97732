"""Figures of defects that were mended, beside those of the commit before if there is one."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Row, say
from benchmarks.processes import run_python
from benchmarks.source import Generation

_FIGURES = {
    "pages_of_a_catalog_indexed_before_its_read": (
        "pages of two catalogs of 5 in a run, the second indexed while the first is read",
        "",
    ),
    "lists_of_a_run_of_many": ("lists of catalogs of a run of 40 catalogs", ""),
    "dollars_of_details_with_another_schema": (
        "details of 1,000 products of which 10 changed, after a change of the columns",
        " $",
    ),
    "seconds_of_a_deadline_of_one": (
        "a list of 20 shops with a deadline of 1 s at a rate limit of 60 a minute",
        " s",
    ),
    "requests_a_second_of_a_full_line": (
        "turns a second of 16 threads, 8 at once for 5 ms each (1,600 are possible)",
        "",
    ),
    "runs_read_for_a_backfill_budget": (
        "runs that one of a backfill reads for its budget, after 200 others",
        "",
    ),
    "store_requests_of_a_first_day": (
        "requests to the store for the first day of a catalog with `catalog_days`",
        "",
    ),
    "open_files_of_a_frame": ("files that a frame of 250 snapshots keeps open", ""),
}


def run(_generations: Sequence[Generation], _rounds: int, before: Path | None) -> Iterator[Row]:
    """Take each figure once: all but two are counts."""
    for figure, (what, unit) in _FIGURES.items():
        say(f"  {figure}")
        earlier = f"before: {_figure(figure, before):.4g}{unit}" if before else ""
        now = _figure(figure)
        yield Row("defects", "", what, [now], now, unit=unit, medians=earlier)


def _figure(name: str, folder: Path | None = None) -> float:
    output = run_python(["-W", "ignore", "-m", "benchmarks.defects", name], folder=folder)
    figure: float = json.loads(output.splitlines()[-1])
    return figure
