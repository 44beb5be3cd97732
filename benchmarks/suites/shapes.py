"""20,000 products in every shape of a page, against plain pages, dlt and the SDK."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter

from benchmarks.corpora import SHAPES
from benchmarks.measure import Reads, Row, ShapeRow, run_reads, say
from benchmarks.processes import Measurement, Server, server
from benchmarks.source import Generation

_PRODUCTS = 20_000
_MAX_ROUNDS = 3
_OTHERS = {"dlt_rest_api": "dlt `rest_api`", "published_sdk": "the SDK's loop"}


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row | ShapeRow]:
    """Compare the CPU time and the memory with those of plain pages, the time with other tools."""
    for generation in generations:
        catalogs = {shape.replace(" ", "-"): _PRODUCTS for shape in SHAPES}
        keys = dict(zip(SHAPES, catalogs, strict=True))
        by_key = dict(zip(catalogs, SHAPES, strict=True))
        with server(generation, catalogs, shapes=by_key) as local:
            contenders = {
                shape: partial(local.measure, "snapshot", [key]) for shape, key in keys.items()
            }
            reads = run_reads(contenders, min(rounds, _MAX_ROUNDS))
            _check_equal_rows(reads.by_contender, generation)
            others = {
                name: {shape: _seconds(local, name, key) for shape, key in keys.items()}
                for name in _OTHERS
                if name != "published_sdk" or generation == "current"
            }
            sizes = {shape: local.page_bytes[key] for shape, key in keys.items()}
        rows = [_shape_row(generation, shape, reads, sizes, others) for shape in SHAPES]
        yield from rows
        yield from _worst(generation, rows)


def _check_equal_rows(reads: Mapping[str, Sequence[Measurement]], generation: Generation) -> None:
    """Check that shapes gave the same rows in each round, and as another shape where they must.

    Raises:
        RuntimeError: They did not.
    """
    for shape, measurements in reads.items():
        reference = (SHAPES[shape].rows_of or {}).get(generation, shape)
        if len({each.digest for each in [*measurements, *reads[reference]]}) != 1:
            raise RuntimeError(f"the rows of {shape!r} differ from those of {reference!r}")


def _seconds(local: Server, contender: str, key: str) -> float | None:
    """Return the wall time of another tool without its start; None if it cannot read the pages."""
    say(f"  {contender}: {key}")
    try:
        return local.measure(contender, [key]).reading_seconds
    except RuntimeError as error:
        say(f"  it failed: {str(error).strip().splitlines()[-1]}")
        return None


def _shape_row(
    generation: Generation,
    shape: str,
    reads: Reads,
    sizes: Mapping[str, int],
    others: Mapping[str, Mapping[str, float | None]],
) -> ShapeRow:
    pair = (shape, "plain")
    cpu = statistics.median(reads.ratios(pair, attrgetter("reading_cpu_seconds")))
    seconds = statistics.median(each.reading_seconds for each in reads.by_contender[shape])
    return ShapeRow(
        generation,
        shape,
        sizes[shape],
        cpu,
        cpu / max(1.0, sizes[shape] / sizes["plain"]),
        statistics.median(reads.ratios(pair, attrgetter("peak_mb"))),
        {
            name: seconds / other if (other := by_shape[shape]) else None
            for name, by_shape in others.items()
        },
    )


def _worst(generation: Generation, rows: Sequence[ShapeRow]) -> Iterator[Row]:
    pages = [row for row in rows if row.shape != "gzip"]
    (plain,) = (row for row in rows if row.shape == "plain")
    alike = [row for row in pages if row.page_bytes < 1.5 * plain.page_bytes]
    for what, values, target in (
        ("CPU, a larger page in proportion to its bytes", [row.cpu_per_byte for row in pages], 1.5),
        ("peak memory, pages of about that size", [row.peak for row in alike], 1.25),
    ):
        subject = f"worst of {len(values)} shapes ÷ plain"
        yield Row("shapes", generation, f"{subject}: {what}", values, max(values), target)
    for name, other in _OTHERS.items():
        ratios = [ratio for row in pages if (ratio := row.others.get(name)) is not None]
        if ratios:
            what = f"wall ÷ {other} as documented"
            yield Row("shapes", generation, f"{what}, worst shape", ratios, max(ratios), 0.25)
            yield Row("shapes", generation, f"{what}, best shape", ratios, min(ratios), 0.13)
