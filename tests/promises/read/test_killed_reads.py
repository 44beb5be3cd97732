"""A killed read costs its retry few requests, and what it left is removed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import OctogenResource, ProductSearch
from tests.forked import processes
from tests.promises.paged_service import PagedService
from tests.promises.read.killed import PAGE_SIZE, read
from tests.results import octogen_at, stored

PAGES = 400
POLL_SECONDS = 300.0


@pytest.fixture
def service() -> Iterator[PagedService]:
    with PagedService({"acme": PAGES * PAGE_SIZE}).running() as service:
        yield service


def kill_at(page: int, service: PagedService, folder: Path) -> None:
    """Read until a page is requested, and kill the process then."""
    service.searches.clear()
    service.last_page = page - 1
    process = processes.Process(target=read, args=(service.base_url, service.api_key, str(folder)))
    process.start()
    deadline = time.monotonic() + POLL_SECONDS
    while page not in service.pages_of("acme"):
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.join(POLL_SECONDS)
    service.last_page = None
    service.searches.clear()


def snapshot(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "products.parquet").drop("fetched_at")


def left(folder: Path) -> list[str]:
    """What is beside the snapshot, but for a half-written file, which goes after an hour."""
    return [path.name for path in folder.iterdir() if not path.name.endswith(".unfinished")]


@pytest.mark.slow
def test_a_read_that_is_killed_at_90_percent_costs_its_retry_15_percent(
    service: PagedService, tmp_path: Path
) -> None:
    kill_at(PAGES * 9 // 10, service, tmp_path)
    assert not (tmp_path / "products.parquet").exists()
    read(service.base_url, service.api_key, str(tmp_path))
    assert len(service.searches) <= 0.15 * PAGES + 2
    assert left(tmp_path) == ["products.parquet"]
    assert snapshot(tmp_path)["uuid"].n_unique() == PAGES * PAGE_SIZE


def test_two_runs_at_once_that_continue_one_read_publish_one_whole_snapshot(
    service: PagedService, tmp_path: Path
) -> None:
    kill_at(100, service, tmp_path)
    arguments = (service.base_url, service.api_key, str(tmp_path))
    together = [processes.Process(target=read, args=arguments) for _ in range(2)]
    for process in together:
        process.start()
    for process in together:
        process.join(POLL_SECONDS)
    assert {process.exitcode for process in together} == {0}
    assert snapshot(tmp_path)["uuid"].n_unique() == PAGES * PAGE_SIZE
    assert set(left(tmp_path)) <= {"products.parquet"}


@pytest.mark.parametrize("partitions", [None, dg.StaticPartitionsDefinition(["first", "second"])])
def test_what_a_read_left_that_is_never_continued_is_gone_after_a_day(
    service: PagedService, tmp_path: Path, partitions: dg.PartitionsDefinition[str] | None
) -> None:
    service.catalogs["zen"] = 5

    def run(catalog: str, partition: str) -> bool:
        search = ProductSearch(catalogs=[catalog], page_size=PAGE_SIZE)

        @dg.asset(partitions_def=partitions)
        def products(octogen: OctogenResource) -> object:
            return octogen.scan(search)

        resources = stored(tmp_path, octogen_at(service, attempts=1))
        return dg.materialize(
            [products],
            resources=resources,
            partition_key=partition if partitions else None,
            raise_on_error=False,
        ).success

    def fail_late(_key: str, page: int, products: list[dict[str, object]]) -> None:
        if page == 30:
            products[0]["currentPrice"] = "a lot"

    service.change = fail_late
    assert not run("acme", "first")
    saved = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert saved
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in saved:
        os.utime(path, (two_days_ago, two_days_ago))
    assert run("zen", "second")
    assert not [path for path in saved if path.exists()]
