"""The results as a Markdown table in README.md."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Row

_README = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- results begin -->", "<!-- results end -->"
_HEADER = (
    "benchmark",
    "generation",
    "what",
    "measured",
    "rounds",
    "from medians of",
    "target",
    "reached",
)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [_HEADER, ["---"] * len(_HEADER), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> list[str]:
    reached = "" if row.target is None else "yes" if row.measured <= row.target else "no"
    return [
        row.name,
        row.generation,
        row.what,
        f"**{_figure(row.measured, row.unit)}**",
        f"{_figure(min(row.values), row.unit)} to {_figure(max(row.values), row.unit)}",
        row.medians,
        "" if row.target is None else f"≤ {row.target:g}{row.unit}",
        reached,
    ]


def _figure(value: float, unit: str) -> str:
    return f"{value:.0f}{unit}" if unit else f"{value:.3f}"


def write(results: str) -> None:
    """Replace the results in README.md by these."""
    before, _, rest = _README.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    _README.write_text(f"{before}{_BEGIN}\n\n{results}\n\n{_END}{after}", encoding="utf-8")
