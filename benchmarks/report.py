"""The results as CSV files, and as one table for each question in README.md.

`python -m benchmarks.report` writes the tables again from the CSV files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.measure import Row, ShapeRow

_FOLDER = Path(__file__).parent
_README, _RESULTS, _SHAPES = (_FOLDER / name for name in ("README.md", "results.csv", "shapes.csv"))
_BEGIN, _END = "<!-- results begin -->", "<!-- results end -->"
_COLUMNS = (
    *("benchmark", "generation", "what", "measured", "unit"),
    *("lowest", "highest", "medians", "target"),
)
_SHAPE_COLUMNS = (
    *("shape", "generation", "page_bytes", "cpu", "cpu_per_byte", "peak_memory"),
    *("wall_dlt_rest_api", "wall_sdk"),
)
_QUESTIONS = {
    "reads": (
        "What does a read cost?",
        "CPU time for 100,000 products. The script (urllib3, pyarrow's JSON reader) checks and "
        "saves nothing. dlt receives the script's Arrow tables. Start-up time is subtracted for "
        "both. Small pages have no images.",
    ),
    "plain": (
        "How fast is it beside documented tools?",
        "Wall time from the first request to a verified Parquet file of 100,000 products.",
    ),
    "shapes": (
        "Do unusual pages slow it down?",
        "20,000 products in each of 18 shapes; `shapes.csv` has every shape.",
    ),
    "small_scans": (
        "How long does a small scan take?",
        "The median of 20 scans in a warm process.",
    ),
    "latency": ("And over a network?", "The server waits 5 ms before each response. Wall time."),
    "memory": ("How much memory does it take?", "Peak resident memory, imports included."),
    "catalogs": (
        "Do concurrent catalogs help?",
        "Each catalog has 25 pages. For eight catalogs, the server waits 40 ms per page, and the "
        "ideal ratio is 0.125.",
    ),
    "walks": (
        "Can one large catalog be read faster?",
        "50,000 products are read by brand from a server that waits 40 ms per page. The ideal "
        "ratio is 0.125.",
    ),
    "changes": ("What do changes cost?", "A query of the history of 1,000,000 products."),
    "checks": ("What do checks cost?", "`build_snapshot_checks` on 1,000,000 products."),
    "history": (
        "What does a history cost?",
        "1 % of the products change each day. dlt merges the same days with `scd2`.",
    ),
    "own_prices": (
        "What do price-list alerts cost?",
        "CPU time of the events and of the history update. 1 % of the product pages change.",
    ),
    "tables": (
        "What does a warehouse table cost?",
        "CPU time of the client for a load into an empty database.",
    ),
    "details": ("How fast are lookups?", "The server waits 20 ms before each response."),
    "url_lists": ("What does a URL list cost?", "The asset also stores the result for each URL."),
    "imports": (
        "What does the import cost?",
        "Wall time of a fresh interpreter with cached files.",
    ),
    "resume": (
        "What does a crash cost?",
        "A read of 1,000 pages is killed with SIGKILL and rerun. The worst round counts.",
    ),
    "sensor": ("What does a tick cost?", "In a temporary SQLite instance; the worst round counts."),
    "materialize": (
        "What does Dagster add?",
        "Wall time of `dagster asset materialize` for a small catalog, from start to exit.",
    ),
    "many": (
        "Does it work for many small catalogs?",
        "Each catalog has 1,000 products. For wall times, the server waits 60 ms per page.",
    ),
}


def tables() -> str:
    """Return the stored results as Markdown: a question, a sentence and a table each."""
    parts = []
    with _RESULTS.open(encoding="utf-8", newline="") as file:
        for name, rows in groupby(csv.DictReader(file), lambda row: row["benchmark"]):
            title, sentence = _QUESTIONS[name]
            parts.append(f"### {title}\n\n{sentence}\n\n{_table([*rows])}")
    return "\n\n".join(parts)


def _table(rows: Sequence[dict[str, str]]) -> str:
    """Return a table with a column for each generation of the service."""
    generations = [
        name for name in ("seed", "current", "") if any(r["generation"] == name for r in rows)
    ]
    both = len(generations) > 1
    header = ["", *(name if both and name else "measured" for name in generations), "target"]
    lines = [header, ["---"] * len(header)]
    for what in dict.fromkeys((row["what"], row["unit"]) for row in rows):
        alike = [row for row in rows if (row["what"], row["unit"]) == what]
        figures = {row["generation"]: _figure(row) for row in alike}
        target = alike[0]["target"]
        limit = f"≤ {target} {what[1]}".rstrip() if target else ""
        lines.append([what[0], *(figures.get(name, "") for name in generations), limit])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(row: dict[str, str]) -> str:
    value = float(row["measured"])
    decimals = 0 if value >= 100 or (row["unit"] and value == int(value)) else 2
    text = f"{value:.{decimals}f} {row['unit']}".rstrip()
    return f"**{text}**" if row["target"] and value > float(row["target"]) else text


def write(rows: Iterable[Row | ShapeRow]) -> None:
    """Store the results of all benchmarks, and replace those in README.md."""
    rows = [*rows]
    _save(_RESULTS, _COLUMNS, [_cells(row) for row in rows if isinstance(row, Row)])
    _save(_SHAPES, _SHAPE_COLUMNS, [_shape_cells(row) for row in rows if isinstance(row, ShapeRow)])
    _write_readme()


def _save(file: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows([columns, *rows])


def _cells(row: Row) -> list[object]:
    figures = (row.measured, min(row.values), max(row.values))
    measured, lowest, highest = (f"{figure:.6g}" for figure in figures)
    target = "" if row.target is None else f"{row.target:g}"
    unit = row.unit.strip()
    return [
        row.name,
        row.generation,
        row.what,
        measured,
        unit,
        lowest,
        highest,
        row.medians,
        target,
    ]


def _shape_cells(row: ShapeRow) -> list[object]:
    others = [_other(row, name) for name in ("dlt_rest_api", "published_sdk")]
    figures = [f"{figure:.2f}" for figure in (row.cpu, row.cpu_per_byte, row.peak)]
    return [row.shape, row.generation, row.page_bytes, *figures, *others]


def _other(row: ShapeRow, name: str) -> str:
    if name not in row.others:
        return ""
    ratio = row.others[name]
    return "fails" if ratio is None else f"{ratio:.2f}"


def _write_readme() -> None:
    before, _, rest = _README.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    _README.write_text(f"{before}{_BEGIN}\n\n{tables()}\n\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    _write_readme()
