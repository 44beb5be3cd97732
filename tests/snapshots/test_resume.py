"""Killed runs: the next one requests only the missing pages, and its snapshot is the same."""

import random
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, build_products_asset
from octogen_dagster.frames.pages.saver import MAX_REPEATED_PAGES
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.forked import processes
from tests.snapshots.resume_runs import PAGE_SIZE, SEARCH, by_dagster, by_hand

INTERVAL = MAX_REPEATED_PAGES
PAGES = 185
SEED = random.SystemRandom().randrange(10**6)
POLL_SECONDS = 60.0


class Runs:
    """Runs of one asset."""

    def __init__(self, sandbox: Sandbox, base: Path) -> None:
        self.sandbox = sandbox
        self.base = base
        self.work = by_hand

    def start(self) -> BaseProcess:
        arguments = (self.sandbox.base_url, self.sandbox.api_key, str(self.base))
        process = processes.Process(target=self.work, args=arguments)
        process.start()
        return process

    def finish(self) -> None:
        process = self.start()
        process.join(POLL_SECONDS)
        assert process.exitcode == 0

    def kill_when(self, reached: Callable[[], bool]) -> None:
        process = self.start()
        deadline = time.monotonic() + POLL_SECONDS
        while not reached():
            assert process.is_alive(), "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.join(POLL_SECONDS)

    def pages(self) -> list[int]:
        """The numbers of the pages that were requested so far."""
        return [
            request.page for request in self.sandbox.requests if request.path == "/products/search"
        ]

    def snapshot(self) -> pl.DataFrame:
        return pl.read_parquet(self.base / "products.parquet").drop("fetched_at")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with Sandbox(catalogs={"northpeak": PAGES * PAGE_SIZE}, generation="seed") as sandbox:
        yield Runs(sandbox, tmp_path)


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_is_continued(runs: Runs) -> None:
    runs.finish()
    undisturbed = runs.snapshot()
    assert undisturbed.height == PAGES * PAGE_SIZE

    generator = random.Random(SEED)
    points = sorted(generator.randrange(1, PAGES) for _ in range(8))
    for point in points:
        runs.base = runs.base.parent / f"{runs.base.name}-{point}"
        before = len(runs.pages())
        runs.kill_when(lambda: len(runs.pages()) >= before + point)  # noqa: B023
        killed_at = len(runs.pages()) - before
        runs.finish()

        where = f"killed at page {killed_at}, seed {SEED}"
        requested = runs.pages()[before:]
        assert len(requested) - PAGES <= INTERVAL, where
        assert set(requested) == set(range(1, PAGES + 1)), where
        assert runs.snapshot().equals(undisturbed), where
        assert [path.name for path in runs.base.iterdir()] == ["products.parquet"], where


def test_a_run_of_dagster_that_is_killed_is_continued(runs: Runs) -> None:
    runs.work = by_dagster
    runs.kill_when(lambda: len(runs.pages()) >= 120)
    runs.finish()
    assert runs.snapshot()["uuid"].n_unique() == PAGES * PAGE_SIZE
    assert len(runs.pages()) - PAGES <= INTERVAL


def test_a_run_that_is_killed_repeatedly_ends_with_a_whole_snapshot(runs: Runs) -> None:
    for part in range(1, 4):
        runs.kill_when(lambda: max(runs.pages(), default=0) >= 60 * part)  # noqa: B023
        assert not (runs.base / "products.parquet").exists()
    runs.finish()
    assert runs.snapshot()["uuid"].n_unique() == PAGES * PAGE_SIZE
    assert len(runs.pages()) <= PAGES + 3 * INTERVAL


def test_a_retry_of_dagster_continues_from_saved_pages(runs: Runs) -> None:
    runs.sandbox.inject(Fault("status", 500, page=60, times=1))
    octogen = OctogenResource(
        api_key=runs.sandbox.api_key, base_url=runs.sandbox.base_url, attempts=1
    )
    products = build_products_asset("products", SEARCH, retry_policy=dg.RetryPolicy(max_retries=1))
    io_manager = ParquetSnapshotIOManager(base_dir=str(runs.base))
    result = dg.materialize([products], resources={"octogen": octogen, "io_manager": io_manager})

    (event,) = result.asset_materializations_for_node("products")
    assert event.metadata["octogen/source"].value == "service, continued from saved pages"
    assert event.metadata["octogen/resumed_pages"].value == 59
    assert runs.snapshot()["uuid"].n_unique() == PAGES * PAGE_SIZE
    assert len(runs.pages()) == PAGES + 60 - 59


def test_two_runs_at_once_publish_one_whole_snapshot(runs: Runs) -> None:
    runs.finish()
    undisturbed = runs.snapshot()
    (runs.base / "products.parquet").unlink()
    runs.kill_when(lambda: len(runs.pages()) >= PAGES + 100)

    together = [runs.start(), runs.start()]
    for process in together:
        process.join(POLL_SECONDS)
    assert {process.exitcode for process in together} == {0}
    assert runs.snapshot().equals(undisturbed)
    left = {path.name for path in runs.base.iterdir()}
    assert left <= {"products.parquet", ".products.previous"}
