"""The results as Markdown tables in README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Row, ShapeRow

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
_SHAPE_HEADER = (
    "shape",
    "generation",
    "bytes of a page",
    "CPU ÷ plain",
    "in proportion to bytes",
    "peak memory ÷ plain",
    "wall ÷ dlt `rest_api`",
    "wall ÷ the SDK's loop",
)


def tables(rows: Sequence[Row | ShapeRow]) -> str:
    """Return the rows as Markdown: a table of all ratios, and one by shape."""
    parts = [_table(_HEADER, [_cells(row) for row in rows if isinstance(row, Row)])]
    if shapes := [_shape_cells(row) for row in rows if isinstance(row, ShapeRow)]:
        parts.append(_table(_SHAPE_HEADER, shapes))
    return "\n\n".join(parts)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    every = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


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


def _shape_cells(row: ShapeRow) -> list[str]:
    cpu = f"{row.cpu_per_byte:.2f}" if row.cpu_per_byte != row.cpu else ""
    others = [_other(row, name) for name in ("dlt_rest_api", "published_sdk")]
    figures = [f"{row.cpu:.2f}", cpu, f"{row.peak:.2f}", *others]
    return [row.shape, row.generation, f"{row.page_bytes:,}", *figures]


def _other(row: ShapeRow, name: str) -> str:
    if name not in row.others:
        return ""
    ratio = row.others[name]
    return "fails" if ratio is None else f"{ratio:.2f}"


def _figure(value: float, unit: str) -> str:
    if not unit:
        return f"{value:.3f}"
    return f"{value:.0f}{unit}" if value >= 100 or value == int(value) else f"{value:.2f}{unit}"


def write(results: str) -> None:
    """Replace the results in README.md by these."""
    before, _, rest = _README.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    _README.write_text(f"{before}{_BEGIN}\n\n{results}\n\n{_END}{after}", encoding="utf-8")
