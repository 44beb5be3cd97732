"""The import time that every run and step pays."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import wall_seconds
from benchmarks.source import Generation

_CODE = {
    "ours": "import runpy, octogen_dagster; runpy.run_path('definitions.py')",
    "floor": "import dagster, polars",
}


def run(_generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the wall times, less that of the bare interpreter."""
    for code in _CODE.values():  # warms byte code and file cache
        wall_seconds(code)
    contenders = {name: partial(_seconds_beyond_start, code) for name, code in _CODE.items()}
    yield run_rounds(contenders, max(rounds, 7)).row(
        "imports",
        "",
        "package and definitions ÷ `import dagster, polars`",
        ("ours", "floor"),
        float,
        "s",
        1.2,
    )


def _seconds_beyond_start(code: str) -> float:
    return wall_seconds(code) - wall_seconds("pass")
