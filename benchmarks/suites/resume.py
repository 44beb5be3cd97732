"""The retry of a read that was killed at 90 % or at a random page."""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.measure import Row, say
from benchmarks.processes import ROOT, Server, run_python, server
from benchmarks.source import PAGE_SIZE, Generation, Source

_CATALOG, _PRODUCTS = "grand-arcade", 100_000
_PAGES = _PRODUCTS // PAGE_SIZE
_MAX_REPEATED_PAGES = 26  # two segments, and two pages to compare
_COMMAND = [sys.executable, "-m", "benchmarks.contenders.snapshot"]
_RANDOM_KILLS = 10


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Count the page requests of retries, the repeated ones, and the files that differ."""
    for generation in generations:
        with (
            server(generation, {_CATALOG: _PRODUCTS}) as local,
            tempfile.TemporaryDirectory() as folder,
        ):
            undisturbed = _read(local, folder)
            retries = [_kill_and_retry(local, round(0.9 * _PAGES), undisturbed)]
            for number in range(2, rounds + 1):
                say(f"  round {number} of {rounds}")
                retries.append(_kill_and_retry(local, round(0.9 * _PAGES), undisturbed))
            seed = random.randrange(10**6)
            pages = random.Random(seed).sample(range(1, _PAGES - 20), _RANDOM_KILLS)
            say(f"  random kills, seed {seed}")
            anywhere = [_kill_and_retry(local, page, undisturbed) for page in pages]
        shares = [retry.requests / _PAGES for retry in retries]
        yield Row(
            "resume",
            generation,
            "page requests of the retry ÷ of an undisturbed read, killed at 90 %",
            shares,
            max(shares),
            0.15,
        )
        repeated = [float(retry.repeated) for retry in [*retries, *anywhere]]
        yield Row(
            "resume",
            generation,
            f"page requests made twice, also in {_RANDOM_KILLS} random kills",
            repeated,
            max(repeated),
            _MAX_REPEATED_PAGES,
            unit=" pages",
        )
        differ = sum(not retry.is_equal for retry in [*retries, *anywhere])
        yield Row(
            "resume",
            generation,
            "files that differ from an undisturbed read",
            [float(differ)],
            differ,
            0,
            unit=" files",
        )


@dataclass(frozen=True)
class _Retry:
    """The result of a retry.

    Attributes:
        requests: The number of its page requests.
        repeated: The page requests of both reads together, beyond one for each page.
        is_equal: True if it published the same rows as an undisturbed read.
    """

    requests: int
    repeated: int
    is_equal: bool


def _kill_and_retry(local: Server, page: int, undisturbed: pl.DataFrame) -> _Retry:
    """Kill a read when `page` pages were served, and retry it.

    Raises:
        RuntimeError: The read ended before it could be killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = local.pages_served()
        with subprocess.Popen([*_COMMAND, _source(local), folder], cwd=ROOT) as killed:
            while local.pages_served() - before < page:
                if killed.poll() is not None:
                    raise RuntimeError(
                        "the read ended before it could be killed: kill it at an earlier page"
                    )
                time.sleep(0.002)
            killed.kill()
        at_kill = local.pages_served()
        again = _read(local, folder)
        after = local.pages_served()
    return _Retry(after - at_kill, after - before - _PAGES, again.equals(undisturbed))


def _read(local: Server, folder: str) -> pl.DataFrame:
    run_python([*_COMMAND[1:], _source(local), folder])
    return pl.read_parquet(Path(folder, "products.parquet")).drop("fetched_at")


def _source(local: Server) -> str:
    return Source(local.base_url, local.generation, [_CATALOG], 8).to_json()
