"""Kill a publishing process at random moments, and check what each kill leaves behind.

The published snapshot must be whole after each kill, the old or the new one. The retry must end and
leave nothing else in the folder.

    uv run python -m benchmarks.kills 200
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import polars as pl

from benchmarks.kill_runs import PAGE_SIZE, publish
from octogen_dagster.sandbox.server import Sandbox

PAGES = 120
MAX_MOMENT_SECONDS = 0.1
RETRY_TIMEOUT_SECONDS = 60.0
MAX_UNFINISHED = 5
"""Half-written files from which on they are made to look old, so that the next run removes them."""

# A fork server imports the modules once, and forks a process for each run.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["benchmarks.kill_runs"])


class Kills:
    """Kills of processes that publish one snapshot again and again.

    Args:
        sandbox: The service that they read.
        folder: The folder of the snapshot.
        generator: Chooses the moments.
    """

    def __init__(self, sandbox: Sandbox, folder: Path, generator: random.Random) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._random = generator
        self._price_usd = 0.0
        self._published = 0
        self.found: Counter[str] = Counter()

    def publish_whole(self) -> None:
        """Publish the first two snapshots, and see what the second costs."""
        self._finish(self._grant())
        before = self._sandbox.charged_usd
        self._finish(self._grant())
        self._price_usd = self._sandbox.charged_usd - before

    def kill_once(self) -> None:
        """Let the catalog change, kill the process that publishes it, and publish it again."""
        expected = self._grant()
        while True:
            moment = self._sandbox.charged_usd + self._random.uniform(0, 1.2 * self._price_usd)
            process = self._start()
            self._wait(process, moment)
            if process.is_alive():
                process.kill()
                process.join()
                break
            self._published = self._rows()  # it was faster than the kill
            expected = self._grant()
        rows = self._rows()
        assert rows in (self._published, expected), f"{rows} rows were left by a kill"
        left = "new" if rows == expected else "old"
        saved = any(self._folder.glob(".products.pages/*/*/*.pages"))
        self.found[f"the {left} snapshot, {'with' if saved else 'without'} saved pages"] += 1
        self._finish(expected)

    def _wait(self, process: BaseProcess, charged_usd: float) -> None:
        """Wait until the service has charged for so many pages, and a moment longer."""
        while process.is_alive() and self._sandbox.charged_usd < charged_usd:
            process.join(0.002)
        process.join(self._random.uniform(0, MAX_MOMENT_SECONDS))

    def _grant(self) -> int:
        """Change the number of products, and return it."""
        products = PAGE_SIZE * PAGES + self._random.randrange(PAGE_SIZE * PAGES // 3)
        self._sandbox.grant("northpeak", products=products)
        return products

    def _start(self) -> BaseProcess:
        """Start a process, and wait until it begins to publish."""
        begun = _processes.Event()
        arguments = (begun, self._sandbox.base_url, self._sandbox.api_key, str(self._folder))
        process = _processes.Process(target=publish, args=arguments)
        process.start()
        assert begun.wait(RETRY_TIMEOUT_SECONDS), "a process did not begin"
        return process

    def _finish(self, expected: int) -> None:
        process = self._start()
        process.join(RETRY_TIMEOUT_SECONDS)
        self._check(process, expected)

    def _check(self, process: BaseProcess, expected: int) -> None:
        assert process.exitcode == 0, f"a run ended with {process.exitcode}"
        self._published = self._rows()
        assert self._published == expected, f"{self._published} of {expected} rows are published"
        left = {path.name for path in self._folder.iterdir()}
        names = {name for name in left if not name.endswith(".unfinished")}  # for an hour
        assert names <= {"products.parquet"}, f"{names} are left"
        unfinished = left - names
        for name in unfinished if len(unfinished) > MAX_UNFINISHED else ():
            os.utime(self._folder / name, (0, 0))
        assert len(unfinished) <= MAX_UNFINISHED + 1, f"{unfinished} were not removed by their age"

    def _rows(self) -> int:
        """Read the whole snapshot, and count its products."""
        return pl.read_parquet(self._folder / "products.parquet")["uuid"].n_unique()


def main() -> None:
    """Kill as many processes as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"{options.kills} kills, seed {options.seed}", flush=True)
    started = time.monotonic()
    with Sandbox(catalogs={"northpeak": 1}) as sandbox, tempfile.TemporaryDirectory() as folder:
        kills = Kills(sandbox, Path(folder), random.Random(options.seed))
        kills.publish_whole()
        for _ in range(options.kills):
            kills.kill_once()
    for what, times in sorted(kills.found.items()):
        print(f"{times:4} times: {what}")
    print(f"each snapshot was whole, and each retry ended: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
