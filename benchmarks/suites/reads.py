"""The CPU time of reads beside that of others, on plain pages and on small ones, in one run."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.measure import Row, run_reads
from benchmarks.processes import server
from benchmarks.source import Generation

PRODUCTS = 100_000
_PAGES = {"plain": "plain", "small": "no images"}
_OURS = ("sink_parquet", "asset", "asset_unsaved")
_SCRIPT = "a 20-line script"
_COMPARISONS = (
    ("`scan_products`", _SCRIPT, ("sink_parquet", "script"), "cpu_seconds", None),
    ("asset", _SCRIPT, ("asset", "script"), "cpu_seconds", None),
    (
        "asset",
        "dlt's Arrow path",
        ("asset", "dlt_arrow"),
        "reading_cpu_seconds",
        None,
    ),
    ("asset", "asset that saves no pages", ("asset", "asset_unsaved"), "cpu_seconds", 1.35),
)


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare reads of both kinds of pages with their floors, all in the same rounds."""
    for generation in generations:
        with server(generation, dict.fromkeys(_PAGES, PRODUCTS), shapes=_PAGES) as local:
            contenders = {
                f"{catalog} {contender}": partial(local.measure, contender, [catalog])
                for catalog in _PAGES
                for contender in (*_OURS, "script", "dlt_arrow")
            }
            reads = run_reads(contenders, rounds)
        for catalog in _PAGES:
            measured = [reads.by_contender[f"{catalog} {contender}"] for contender in _OURS]
            if len({read.digest for every in measured for read in every}) != 1:
                raise RuntimeError("scan and asset, with and without saved pages, differ in rows")
            for what, floor, pair, figure, target in _COMPARISONS:
                yield reads.compare(
                    "reads",
                    generation,
                    f"{what} ÷ {floor}, {catalog} pages",
                    (f"{catalog} {pair[0]}", f"{catalog} {pair[1]}"),
                    figure,
                    target,
                )
