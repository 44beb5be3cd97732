"""A read that is killed at 90 % and made again."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from benchmarks.measure import Row, say
from benchmarks.processes import ROOT, Server, run_python, server
from benchmarks.source import PAGE_SIZE, Generation, Source
from octogen_dagster.frames.page_saver import MOST_PAGES_TWICE

_CATALOG, _PRODUCTS = "grand-arcade", 100_000
_PAGES = _PRODUCTS // PAGE_SIZE
_PROGRAM = """
import sys
from pathlib import Path
from benchmarks.contenders import snapshot
from benchmarks.source import Source
snapshot.read(Source.from_json(sys.argv[1]), Path(sys.argv[2]))
"""


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Page requests of the retry ÷ pages there are, and page requests made twice."""
    for generation in generations:
        retries = []
        with server(generation, {_CATALOG: _PRODUCTS}) as local:
            for number in range(1, rounds + 1):
                say(f"  round {number} of {rounds}")
                retries.append(_kill_and_retry(local))
        shares = [retry / _PAGES for _, retry in retries]
        yield Row(
            "resume",
            generation,
            "killed at 90 % of 100,000 products: page requests of the retry ÷ of an undisturbed "
            "read, worst round",
            shares,
            max(shares),
            0.15,
        )
        repeated = [float(killed + retry - _PAGES) for killed, retry in retries]
        yield Row(
            "resume",
            generation,
            "page requests made twice, worst round",
            repeated,
            max(repeated),
            MOST_PAGES_TWICE,
            unit=" pages",
        )


def _kill_and_retry(local: Server) -> tuple[int, int]:
    """Page requests before the kill, and of the retry.

    Raises:
        RuntimeError: The retry published something else than an undisturbed read.
    """
    source = Source(local.base_url, local.generation, [_CATALOG], 8).to_json()
    with tempfile.TemporaryDirectory() as undisturbed, tempfile.TemporaryDirectory() as folder:
        run_python(["-c", _PROGRAM, source, undisturbed])
        before = local.pages_served()
        with subprocess.Popen([sys.executable, "-c", _PROGRAM, source, folder], cwd=ROOT) as killed:
            while local.pages_served() - before < 0.9 * _PAGES:
                if killed.poll() is not None:
                    raise RuntimeError("the read was over before it could be killed")
                time.sleep(0.002)
            killed.kill()
        at_the_kill = local.pages_served()
        run_python(["-c", _PROGRAM, source, folder])
        after = local.pages_served()
        frames = [
            pl.read_parquet(Path(place, "products.parquet")).drop("fetched_at")
            for place in (undisturbed, folder)
        ]
    if not frames[0].equals(frames[1]):
        raise RuntimeError("the retry published something else than an undisturbed read")
    return at_the_kill - before, after - at_the_kill
