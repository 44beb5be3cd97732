"""100,000 plain products to published Parquet, against other tools and the commit before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, run_reads
from benchmarks.processes import server
from benchmarks.source import Generation

_SUBJECT = "100,000 products to Parquet, pages saved"
_CPU, _WALL, _READING_CPU = "cpu_seconds", "seconds", "reading_cpu_seconds"
_COMPARISONS: Sequence[tuple[str, str, str, dict[Generation, float] | float | None]] = (
    ("script", "a script of 20 lines (urllib3, pyarrow's JSON reader)", _CPU, None),
    ("dlt_arrow", "dlt's Arrow path, start-up taken off both", _READING_CPU, None),
    ("duckdb_pages", "DuckDB's `read_json` of pages that urllib3 saved", _CPU, 0.8),
    ("sdk_rows", "the SDK's transport and JSON, `pl.DataFrame`", _CPU, 0.35),
    ("sdk_polars", "the SDK's transport, Polars' JSON decoder", _CPU, None),
    ("loop", "a loop (httpx, a list of rows, `pl.DataFrame`)", _WALL, None),
    ("dlt_rest_api", "dlt `rest_api` as documented", _WALL, 0.2),
    ("published_sdk", "the SDK's loop as documented", _WALL, 0.2),
    (
        "bare_httpx",
        "httpx.Client that throws the pages away",
        _WALL,
        {"seed": 2.0, "current": 2.5},
    ),
    ("before", "the commit before", _CPU, None),
    ("snapshot_unsaved", "not saving pages", _CPU, 1.1),
)


def run(generations: Sequence[Generation], rounds: int, before: Path | None) -> Iterator[Row]:
    """Compare the CPU time or the wall time with that of each contender."""
    for generation in generations:
        skipped = set() if before else {"before"}
        if generation == "seed":
            skipped.add("published_sdk")  # it supports only the current generation
        compared = [entry for entry in _COMPARISONS if entry[0] not in skipped]
        with server(generation, {"grand-arcade": 100_000}) as local:
            contenders = {
                name: partial(local.measure, name, before=before if name == "before" else None)
                for name in ("snapshot", *(entry[0] for entry in compared))
            }
            reads = run_reads(contenders, rounds)
        ours = ("snapshot", "snapshot_unsaved", "before")
        digests = {
            read.digest for name in ours if name in contenders for read in reads.by_contender[name]
        }
        if len(digests) != 1:
            raise RuntimeError("the snapshots with and without saved pages or before differ")
        for name, other, figure, target in compared:
            what = f"{_SUBJECT} ÷ {other} ({'wall' if figure == _WALL else 'CPU'})"
            limit = target.get(generation) if isinstance(target, dict) else target
            yield reads.compare("plain", generation, what, ("snapshot", name), figure, limit)
